import { ArnFormat, Stack, Token } from "aws-cdk-lib";
import * as ec2 from "aws-cdk-lib/aws-ec2";
import type * as iam from "aws-cdk-lib/aws-iam";
import type * as rds from "aws-cdk-lib/aws-rds";
import type * as secretsmanager from "aws-cdk-lib/aws-secretsmanager";
import type { Construct } from "constructs";
import { ConfigurationError } from "../../lib/change/tributary-error.ts";
import { AUTH_VARIABLE, SECRET_VARIABLE } from "../../lib/credentials/database-connection.ts";
import { acknowledgeWildcard, allow } from "./grants.ts";

/** A PostgreSQL server that is named by its address. */
export interface ServerAddress {
  readonly host: string;
  /** Default 5432. */
  readonly port?: number;
  /** The server's security group, where this app may add a rule to it. */
  readonly securityGroup?: ec2.ISecurityGroup;
  /** `db-…` or `cluster-…`: RDS IAM authentication needs it. */
  readonly resourceId?: string;
  /** The certificate's authority: a PEM file beside the app, instead of the system's (or RDS's, for its hosts). */
  readonly certificateAuthorityFile?: string;
}

/** The source: an instance of RDS, an Aurora cluster (its writer), or any server by its address. */
export type SourceDatabase = rds.IDatabaseInstance | rds.IDatabaseCluster | ServerAddress;

/** The capture task's credentials. */
export interface DatabaseAccess {
  readonly database: SourceDatabase;
  readonly databaseName: string;
  /** The role in PostgreSQL, under `iam`; a secret names its own. */
  readonly user: string;
  /** `secret`: user and password from Secrets Manager. `iam`: an RDS token for each connection. */
  readonly authentication: "secret" | "iam";
  readonly secret: secretsmanager.ISecret | undefined;
}

/** Facts about the database that the rest of the stack needs. */
export interface DatabaseFacts {
  readonly host: string;
  readonly port: string;
  /** `DBInstanceIdentifier` of RDS's own metrics; undefined for a server outside of RDS. */
  readonly metricsDimension: Readonly<Record<string, string>> | undefined;
  readonly isRds: boolean;
  readonly certificateAuthorityFile: string | undefined;
}

/**
 * The address of the server, and how RDS's metrics name it.
 * @throws ConfigurationError for a cluster that was imported without its endpoint.
 */
export function databaseFacts(database: SourceDatabase): DatabaseFacts {
  if ("instanceIdentifier" in database) {
    return {
      host: database.dbInstanceEndpointAddress,
      port: database.dbInstanceEndpointPort,
      metricsDimension: { DBInstanceIdentifier: database.instanceIdentifier },
      isRds: true,
      certificateAuthorityFile: undefined,
    };
  }
  if ("clusterIdentifier" in database) {
    const writer = imported(
      () => database.clusterEndpoint,
      "it was imported without its writer's address: give clusterEndpointAddress and port",
    );
    return {
      host: writer.hostname,
      port: String(writer.port),
      metricsDimension: { DBClusterIdentifier: database.clusterIdentifier, Role: "WRITER" },
      isRds: true,
      certificateAuthorityFile: undefined,
    };
  }
  return {
    host: database.host,
    port: String(database.port ?? 5432),
    metricsDimension: undefined,
    // A host that is known at deploy only (a parameter, an import) is taken for RDS's.
    isRds: Token.isUnresolved(database.host) || /\.rds\.amazonaws\.com(\.cn)?$/.test(database.host),
    certificateAuthorityFile: database.certificateAuthorityFile,
  };
}

/**
 * The environment that leads the capture task to its database: never a password. The program asks Secrets Manager or
 * signs a token for each connection, so that a rotated secret is met by the next one.
 */
export function databaseEnvironment(access: DatabaseAccess): Record<string, string> {
  const { host, port } = databaseFacts(access.database);
  return {
    PGHOST: host,
    PGPORT: port,
    PGDATABASE: access.databaseName,
    TRIBUTARY_TLS: "verify-full",
    ...(access.authentication === "iam"
      ? { [AUTH_VARIABLE]: "iam", PGUSER: access.user }
      : { [SECRET_VARIABLE]: access.secret?.secretArn ?? "" }),
  };
}

/**
 * Permits a role to sign in, and nothing else.
 * @throws ConfigurationError when a secret or a resource id is missing.
 */
export function grantSignIn(scope: Construct, grantee: iam.IGrantable, access: DatabaseAccess): void {
  const { database, user, secret } = access;
  if (access.authentication === "secret") {
    if (!secret) {
      throw new ConfigurationError("CdcPipeline", [
        {
          path: "secret",
          value: undefined,
          remedy: 'give the secret with the role\'s "username" and "password", or authentication: "iam"',
        },
      ]);
    }
    allow(grantee, ["secretsmanager:GetSecretValue"], [secretArnPattern(secret)]);
    acknowledgeWildcard(
      grantee,
      "the six characters that Secrets Manager adds to a secret's name",
      "-??????",
    );
    if (secret.encryptionKey) allow(grantee, ["kms:Decrypt"], [secret.encryptionKey.keyArn]);
    return;
  }
  const resourceName = imported(
    () => resourceId(database),
    "give its resource id (db-… or cluster-…: instanceResourceId, clusterResourceIdentifier, or resourceId beside host): authentication by IAM is permitted by it",
  );
  // https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.IAMPolicy.html
  const arn = Stack.of(scope).formatArn({
    service: "rds-db",
    resource: "dbuser",
    resourceName: `${resourceName}/${user}`,
    arnFormat: ArnFormat.COLON_RESOURCE_NAME,
  });
  allow(grantee, ["rds-db:connect"], [arn]);
}

/**
 * Lets the security group of ours through to the server; the rule stands in our stack. A server whose groups are not known
 * gets none: only the way out is opened, and whoever has the server lets us in.
 */
export function allowToDatabase(from: ec2.ISecurityGroup, database: SourceDatabase): void {
  if (letIntoDatabase(from.connections, database)) return;
  from.addEgressRule(ec2.Peer.anyIpv4(), portOf(database), TO_DATABASE);
}

/** Has the server's security groups let these in, and returns whether any of them is known. */
export function letIntoDatabase(from: ec2.Connections, database: SourceDatabase): boolean {
  const groups = "connections" in database ? database.connections.securityGroups : [database.securityGroup];
  const known = groups.filter((group) => group !== undefined);
  for (const group of known) from.allowTo(group, portOf(database), TO_DATABASE);
  return known.length > 0;
}

const TO_DATABASE = "capture task to PostgreSQL";

function portOf(database: SourceDatabase): ec2.Port {
  const { port } = databaseFacts(database);
  return ec2.Port.tcp(Token.isUnresolved(port) ? Token.asNumber(port) : Number(port));
}

/** A secret that was imported by its name has an ARN without the six characters that Secrets Manager adds. */
function secretArnPattern(secret: secretsmanager.ISecret): string {
  return secret.secretFullArn ?? `${secret.secretArn}-??????`;
}

/** Reads a fact that an imported database may not know of itself: CDK says so by an error of its own, or by undefined. */
function imported<T>(read: () => T | undefined, remedy: string): T {
  let value: T | undefined;
  try {
    value = read();
  } catch {
    // Said below, with the remedy.
  }
  if (value !== undefined) return value;
  throw new ConfigurationError("CdcPipeline", [{ path: "database", value: undefined, remedy }]);
}

function resourceId(database: SourceDatabase): string | undefined {
  if ("instanceIdentifier" in database) return database.instanceResourceId;
  if ("clusterIdentifier" in database) return database.clusterResourceIdentifier;
  return database.resourceId;
}
