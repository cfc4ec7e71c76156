import type { SecretsManagerClient } from "@aws-sdk/client-secrets-manager";
import { secretsManagerClient } from "../aws/clients.ts";
import { ConfigurationError, type ConfigurationProblem } from "../change/tributary-error.ts";
import { connectionFromEnvironment } from "../source/postgres/link/connection.ts";
import type { PostgresConnectionOptions } from "../source/postgres/link/connection-options.ts";
import { SecretChangedError } from "./credential-errors.ts";
import { iamToken } from "./iam-token.ts";
import { type DatabaseSecret, readSecret } from "./secret.ts";

type Environment = Readonly<Record<string, string | undefined>>;

/** Names the secret that holds the database's user and password. */
export const SECRET_VARIABLE = "TRIBUTARY_DATABASE_SECRET_ARN";
/** `iam`: RDS IAM tokens instead of a password. */
export const AUTH_VARIABLE = "TRIBUTARY_DATABASE_AUTH";

/**
 * Address of the source database, and our credentials there: by the secret of `TRIBUTARY_DATABASE_SECRET_ARN`, by RDS
 * IAM tokens (`TRIBUTARY_DATABASE_AUTH=iam`), or by a password as `connectionFromEnvironment` says, which gives all the
 * rest. The secret is read, and the token made, anew for each connection: a rotated password is met by the next attempt.
 *
 * `place`: a URL without a password that says where, ahead of the environment's variables.
 *
 * @throws ConfigurationError, SecretUnavailableError, SecretFormatError
 */
export async function databaseConnection(
  environment: Environment,
  signal?: AbortSignal,
  place?: string,
): Promise<PostgresConnectionOptions> {
  const arn = environment[SECRET_VARIABLE];
  const auth = environment[AUTH_VARIABLE];
  const problems = contradictions(environment);
  if (problems.length > 0) throw new ConfigurationError("The connection to PostgreSQL", problems);
  const there = place === undefined ? environment : { ...environment, DATABASE_URL: place };
  if (arn) return bySecret(there, arn, await secretsManagerClient(environment), signal);
  if (auth === "iam") return byToken(there);
  return connectionFromEnvironment(there);
}

async function bySecret(
  environment: Environment,
  arn: string,
  secrets: SecretsManagerClient,
  signal: AbortSignal | undefined,
): Promise<PostgresConnectionOptions> {
  const first = await readSecret(secrets, arn, signal);
  const options = connectionFromEnvironment({
    ...environment,
    PGHOST: environment.PGHOST || first.host,
    PGPORT: environment.PGPORT || first.port?.toString(),
    PGDATABASE: environment.PGDATABASE || first.dbname,
    PGUSER: first.username,
  });
  return {
    ...options,
    // The password is the secret's, so the user is, whatever a URL says.
    user: first.username,
    password: async () => {
      const now = await readSecret(secrets, arn, signal);
      const changed = changedPart(first, now, environment);
      if (changed) throw new SecretChangedError(arn, changed);
      return now.password;
    },
  };
}

/** Returns the part of a secret that changed and that a running task cannot follow: it was told where to connect when it started. */
function changedPart(first: DatabaseSecret, now: DatabaseSecret, environment: Environment) {
  if (now.username !== first.username) return "user";
  const { DATABASE_URL: place, PGHOST, PGPORT } = environment;
  if (!place && !PGHOST && now.host !== first.host) return "host";
  if (!place && !PGPORT && now.port !== first.port) return "port";
  return undefined;
}

function byToken(environment: Environment): PostgresConnectionOptions {
  const options = connectionFromEnvironment(environment);
  if (options.tls.mode !== "verify-full") {
    // A token travels as clear text.
    const remedy = "write verify-full, or leave it out: IAM tokens must not be shown to anyone else";
    const path = environment.TRIBUTARY_TLS ? "TRIBUTARY_TLS" : "PGHOST";
    throw new ConfigurationError("The connection to PostgreSQL", [
      { path, value: environment.TRIBUTARY_TLS ?? options.host, remedy },
    ]);
  }
  if (options.hosts) {
    const remedy = "name one server (on Aurora the writer endpoint): an IAM token is made for one";
    throw new ConfigurationError("The connection to PostgreSQL", [
      { path: "PGHOST", value: options.hosts.list.map(({ host }) => host).join(","), remedy },
    ]);
  }
  const region = environment.AWS_REGION ?? environment.AWS_DEFAULT_REGION;
  return { ...options, password: iamToken({ ...options, region }) };
}

function contradictions(environment: Environment): ConfigurationProblem[] {
  const problems: ConfigurationProblem[] = [];
  const arn = environment[SECRET_VARIABLE];
  const auth = environment[AUTH_VARIABLE];
  if (auth !== undefined && auth !== "" && auth !== "iam") {
    const remedy = "write iam, or leave it out";
    problems.push({ path: AUTH_VARIABLE, value: auth, remedy });
  }
  if (arn && auth === "iam") {
    const remedy = `leave out ${SECRET_VARIABLE}: a token takes the place of the password`;
    problems.push({ path: SECRET_VARIABLE, value: arn, remedy });
  }
  const chosen = arn ? SECRET_VARIABLE : auth === "iam" ? AUTH_VARIABLE : undefined;
  if (!chosen) return problems;
  const passwords = ["DATABASE_URL", "PGPASSWORD", ...(arn ? ["PGUSER"] : [])];
  for (const path of passwords.filter((name) => environment[name])) {
    const remedy = `leave it out: ${chosen} says who we are (PGHOST, PGPORT and PGDATABASE may name the place)`;
    problems.push({ path, value: "(not shown)", remedy });
  }
  return problems;
}
