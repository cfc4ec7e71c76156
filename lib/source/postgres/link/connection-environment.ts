import { readFileSync } from "node:fs";
import { ConfigurationError, type ConfigurationProblem } from "../../../change/tributary-error.ts";
import type { PostgresConnectionOptions, PostgresTls } from "./connection-options.ts";
import { Hosts } from "./hosts.ts";

type Environment = Readonly<Record<string, string | undefined>>;

const TLS_MODES = ["disable", "require", "verify-full"] as const;
const TLS_REMEDY = "write disable, require or verify-full";
const URL_PARAMETERS = [
  "sslmode",
  "sslrootcert",
  "application_name",
  "connect_timeout",
  "target_session_attrs",
  "host",
  "port",
];
/** Capture reads from the server that takes writes, whatever is asked for. */
const WRITER_ATTRIBUTES = ["read-write", "primary"];
const LOOPBACK = /^(localhost|127\.\d+\.\d+\.\d+|::1|\/.*)$/;

/**
 * Reads the address of the source database: `DATABASE_URL`, or `PGHOST`, `PGPORT`, `PGDATABASE`, `PGUSER`; the password from
 * the URL or `PGPASSWORD`; TLS from `TRIBUTARY_TLS` (`disable`, `require`, `verify-full`) or the URL's `sslmode`,
 * with the authorities of `TRIBUTARY_TLS_CA_FILE` (PEM) or `sslrootcert` instead of the system's. Without a choice
 * TLS is `verify-full`, and `disable` to the own machine.
 *
 * @throws ConfigurationError naming every wrong variable; passwords are never shown.
 */
export function connectionFromEnvironment(environment: Environment): PostgresConnectionOptions {
  const problems: ConfigurationProblem[] = [];
  const url = environment.DATABASE_URL ? parseUrl(environment.DATABASE_URL, problems) : undefined;
  const part = (name: string, ofUrl: string | undefined) => ofUrl || environment[name] || undefined;

  const hostList = part("PGHOST", url?.host)?.split(",");
  const host = hostList?.[0];
  const user = part("PGUSER", url?.user);
  const database = part("PGDATABASE", url?.database);
  const portList = (part("PGPORT", url?.port) ?? "5432").split(",").map((text) => Number(text || "5432"));
  const port = portList[0] ?? Number.NaN;
  if (problems.length === 0) {
    if (!environment.DATABASE_URL && !host) {
      problems.push({
        path: "DATABASE_URL",
        value: undefined,
        remedy:
          "set postgres://user:password@host:5432/database, or PGHOST, PGUSER, PGDATABASE and PGPASSWORD",
      });
    } else {
      if (!host)
        problems.push({
          path: "PGHOST",
          value: host,
          remedy: "name the server, or write it into DATABASE_URL",
        });
      if (!user)
        problems.push({
          path: "PGUSER",
          value: user,
          remedy: "name the role, or write it into DATABASE_URL",
        });
      if (!database) {
        problems.push({
          path: "PGDATABASE",
          value: database,
          remedy: "name the database, or write it into DATABASE_URL",
        });
      }
    }
    if (portList.some((number) => !Number.isInteger(number) || number < 1 || number > 65_535))
      problems.push({ path: "PGPORT", value: environment.PGPORT, remedy: "write a port number" });
    if (hostList?.includes(""))
      problems.push({ path: "PGHOST", value: hostList.join(","), remedy: "name each server" });
    if (hostList && portList.length > 1 && portList.length !== hostList.length) {
      const remedy = "write one port for all servers, or one for each";
      problems.push({ path: "PGPORT", value: portList.join(","), remedy });
    }
  }
  // In the open only where every server is this machine.
  const farthest = hostList?.find((name) => !LOOPBACK.test(name)) ?? host ?? "";
  const tls = tlsOf(environment, url, farthest, problems);
  if (problems.length > 0 || !hostList || !host || !user || !database)
    throw new ConfigurationError("The connection to PostgreSQL", problems);
  return {
    host,
    port,
    ...(hostList.length > 1
      ? { hosts: new Hosts(hostList.map((name, i) => ({ host: name, port: portList[i] ?? port }))) }
      : {}),
    user,
    database,
    password: url?.password || environment.PGPASSWORD || "",
    tls,
    ...(url?.applicationName ? { applicationName: url.applicationName } : {}),
    ...(url?.connectTimeoutMs ? { connectTimeoutMs: url.connectTimeoutMs } : {}),
  };
}

/**
 * The connection that a `postgres://` URL names, for command lines; TLS as in `connectionFromEnvironment`.
 * @throws ConfigurationError
 */
export function connectionFromUrl(url: string, environment: Environment = {}): PostgresConnectionOptions {
  return connectionFromEnvironment({
    DATABASE_URL: url,
    PGPASSWORD: environment.PGPASSWORD,
    TRIBUTARY_TLS: environment.TRIBUTARY_TLS,
    TRIBUTARY_TLS_CA_FILE: environment.TRIBUTARY_TLS_CA_FILE,
  });
}

interface UrlParts {
  readonly host: string;
  readonly port: string;
  readonly user: string;
  readonly password: string;
  readonly database: string;
  readonly sslmode: string | undefined;
  readonly sslrootcert: string | undefined;
  readonly applicationName: string | undefined;
  readonly connectTimeoutMs: number | undefined;
}

function parseUrl(text: string, problems: ConfigurationProblem[]): UrlParts | undefined {
  const wrong = (remedy: string, value: unknown) => {
    problems.push({ path: "DATABASE_URL", value, remedy });
    return undefined;
  };
  const form = "write postgres://user:password@host:5432/database, with odd characters per-cent encoded";
  if (!/^postgres(ql)?:\/\//.test(text)) return wrong(form, "(not shown: it may hold a password)");
  // URLs have one host: those of the list are taken out, and another stands in for them.
  const [, scheme = "", credentials = "", authority = "", rest = ""] =
    /^(postgres(?:ql)?:\/\/)([^/?#]*@)?([^/?#]*)(.*)$/s.exec(text) ?? [];
  const several = authority.split(",");
  const servers = several.map((server) => /^(\[[^\]]*\]|[^:]*)(?::(\d*))?$/.exec(server));
  if (servers.some((server) => server === null)) return wrong(form, "(not shown: it may hold a password)");
  const standsIn = several.length > 1 || (authority === "" && /[?&]host=/.test(rest));
  let url: URL;
  let parts: Pick<UrlParts, "user" | "password" | "database">;
  try {
    url = new URL(standsIn ? `${scheme}${credentials}several${rest}` : text);
    parts = {
      user: decodeURIComponent(url.username),
      password: decodeURIComponent(url.password),
      database: decodeURIComponent(url.pathname.slice(1)),
    };
  } catch {
    return wrong(form, "(not shown: it may hold a password)");
  }
  const attributes = url.searchParams.get("target_session_attrs");
  if (attributes !== null && !WRITER_ATTRIBUTES.includes(attributes))
    wrong(
      `write target_session_attrs=${WRITER_ATTRIBUTES.join(" or ")}: the log is read from the server that takes writes`,
      attributes,
    );
  for (const [name, value] of url.searchParams) {
    if (name === "pgbouncer") wrong("connect to PostgreSQL itself, not to PgBouncer", `${name}=${value}`);
    else if (!URL_PARAMETERS.includes(name))
      wrong(`remove the parameter "${name}": only ${URL_PARAMETERS.join(", ")} are understood`, name);
  }
  const timeout = url.searchParams.get("connect_timeout");
  const hosts =
    several.length > 1
      ? servers.map((server) => decodeURIComponent(server?.[1] ?? "").replace(/^\[(.*)\]$/, "$1"))
      : [url.hostname.replace(/^\[(.*)\]$/, "$1")];
  const ports = several.length > 1 ? servers.map((server) => server?.[2] ?? "") : [url.port];
  return {
    ...parts,
    host: url.searchParams.get("host") ?? hosts.join(","),
    port: url.searchParams.get("port") ?? (ports.some((port) => port !== "") ? ports.join(",") : ""),
    sslmode: url.searchParams.get("sslmode") ?? undefined,
    sslrootcert: url.searchParams.get("sslrootcert") ?? undefined,
    applicationName: url.searchParams.get("application_name") ?? undefined,
    connectTimeoutMs: timeout !== null && Number(timeout) > 0 ? Number(timeout) * 1000 : undefined,
  };
}

function tlsOf(
  environment: Environment,
  url: UrlParts | undefined,
  host: string,
  problems: ConfigurationProblem[],
): PostgresTls {
  const mode = (path: string, value: string | undefined): PostgresTls["mode"] | undefined => {
    if (value === undefined || value === "") return undefined;
    const known = TLS_MODES.find((candidate) => candidate === value);
    if (!known) {
      const stronger = value === "verify-ca" || value === "prefer" || value === "allow";
      problems.push({
        path,
        value,
        remedy: stronger
          ? `${TLS_REMEDY}: "${value}" does not say whom we talk to; verify-full does`
          : TLS_REMEDY,
      });
    }
    return known;
  };
  const ofEnvironment = mode("TRIBUTARY_TLS", environment.TRIBUTARY_TLS);
  const ofUrl = mode("DATABASE_URL sslmode", url?.sslmode);
  if (ofEnvironment && ofUrl && ofEnvironment !== ofUrl) {
    problems.push({
      path: "TRIBUTARY_TLS",
      value: ofEnvironment,
      remedy: `DATABASE_URL says sslmode=${ofUrl}: leave one of the two out`,
    });
  }
  const chosen = ofEnvironment ?? ofUrl ?? (LOOPBACK.test(host) ? "disable" : "verify-full");
  const [path, file] = environment.TRIBUTARY_TLS_CA_FILE
    ? ["TRIBUTARY_TLS_CA_FILE", environment.TRIBUTARY_TLS_CA_FILE]
    : ["DATABASE_URL sslrootcert", url?.sslrootcert];
  if (!file || file === "system") return { mode: chosen };
  if (chosen !== "verify-full") {
    problems.push({
      path,
      value: file,
      remedy: `a CA file needs TLS verify-full (it is ${chosen}): set TRIBUTARY_TLS=verify-full or remove the file`,
    });
  }
  try {
    return { mode: chosen, ca: readFileSync(file, "utf8") };
  } catch (error) {
    problems.push({
      path,
      value: file,
      remedy: `name a readable PEM file (${(error as NodeJS.ErrnoException).code ?? "unreadable"})`,
    });
    return { mode: chosen };
  }
}
