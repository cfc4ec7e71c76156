import { readFileSync } from "node:fs";
import { ConfigurationError, type ConfigurationProblem } from "../../errors.ts";
import type { PostgresConnectionOptions, PostgresTls } from "./connection.ts";

type Environment = Readonly<Record<string, string | undefined>>;

const TLS_MODES = ["disable", "require", "verify-full"] as const;
const TLS_REMEDY = "write disable, require or verify-full";
const URL_PARAMETERS = ["sslmode", "sslrootcert", "application_name", "connect_timeout"];
const LOOPBACK = /^(localhost|127\.\d+\.\d+\.\d+|::1|\/.*)$/;

/**
 * Where the source database is: `DATABASE_URL`, or `PGHOST`, `PGPORT`, `PGDATABASE`, `PGUSER`; the password from
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

  const host = part("PGHOST", url?.host);
  const user = part("PGUSER", url?.user);
  const database = part("PGDATABASE", url?.database);
  const port = Number(part("PGPORT", url?.port) ?? "5432");
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
    if (!Number.isInteger(port) || port < 1 || port > 65_535)
      problems.push({ path: "PGPORT", value: environment.PGPORT, remedy: "write a port number" });
  }
  const tls = tlsOf(environment, url, host ?? "", problems);
  if (problems.length > 0 || !host || !user || !database)
    throw new ConfigurationError("The connection to PostgreSQL", problems);
  return {
    host,
    port,
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
  let url: URL;
  let parts: Pick<UrlParts, "user" | "password" | "database">;
  try {
    url = new URL(text);
    parts = {
      user: decodeURIComponent(url.username),
      password: decodeURIComponent(url.password),
      database: decodeURIComponent(url.pathname.slice(1)),
    };
  } catch {
    return wrong(form, "(not shown: it may hold a password)");
  }
  if (url.hostname.includes(",")) return wrong("name one host: the one that takes writes", url.hostname);
  for (const [name, value] of url.searchParams) {
    if (name === "pgbouncer") wrong("connect to PostgreSQL itself, not to PgBouncer", `${name}=${value}`);
    else if (!URL_PARAMETERS.includes(name))
      wrong(`remove the parameter "${name}": only ${URL_PARAMETERS.join(", ")} are understood`, name);
  }
  const timeout = url.searchParams.get("connect_timeout");
  return {
    ...parts,
    host: url.hostname.replace(/^\[(.*)\]$/, "$1"),
    port: url.port,
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
