import {
  CreateSecretCommand,
  PutSecretValueCommand,
  type SecretsManagerClient,
} from "@aws-sdk/client-secrets-manager";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { secretsManagerClient } from "../../lib/aws/clients.ts";
import { databaseConnection } from "../../lib/credentials/database-connection.ts";
import { readSecret } from "../../lib/credentials/secret.ts";
import { connect, disconnect } from "../../lib/source/postgres/link/connection.ts";
import { type Cloud, cloudEnvironment, cloudKinds, NoCloudError } from "../deploy/cloud.ts";
import { freshDatabase, withPostgres } from "../postgres/server.ts";
import { superuser } from "../postgres/source.ts";

const INSTALL_MS = 180_000;

describe("the database's secret", () => {
  let cloud: Cloud | undefined;
  let missing = "";
  let secrets: SecretsManagerClient;
  let environment: Record<string, string>;

  beforeAll(async () => {
    try {
      cloud = await (cloudKinds()[0] as ReturnType<typeof cloudKinds>[number]).start();
    } catch (error) {
      if (!(error instanceof NoCloudError)) throw error;
      missing = `SKIPPED, no emulated Secrets Manager: ${error.message}`;
      process.stderr.write(`${missing}\n`);
      return;
    }
    environment = cloudEnvironment(cloud);
    secrets = await secretsManagerClient(environment);
  }, INSTALL_MS);
  afterAll(() => cloud?.stop());
  beforeEach((context) => {
    if (missing) context.skip(missing);
  });

  let count = 0;
  async function secret(value: unknown): Promise<string> {
    const SecretString = typeof value === "string" ? value : JSON.stringify(value);
    const name = `db-${process.pid}-${count++}`;
    const { ARN } = await secrets.send(new CreateSecretCommand({ Name: name, SecretString }));
    return ARN as string;
  }

  const put = (arn: string, value: unknown) =>
    secrets.send(new PutSecretValueCommand({ SecretId: arn, SecretString: JSON.stringify(value) }));

  withPostgres((server) => {
    test("says who and where; a rotated password is met by the next connection", async () => {
      const url = new URL(await freshDatabase(server()));
      const admin = await superuser(url.toString());
      const role = `rotating_${process.pid}`;
      await admin.query(`CREATE ROLE ${role} LOGIN PASSWORD 'first'`);
      const place = {
        engine: "postgres",
        host: url.hostname,
        port: Number(url.port),
        dbname: url.pathname.slice(1),
        username: role,
      };
      const arn = await secret({ ...place, password: "first" });
      const connection = await databaseConnection({ ...environment, TRIBUTARY_DATABASE_SECRET_ARN: arn });
      expect(connection).toMatchObject({ host: place.host, port: place.port, database: place.dbname });
      const who = async () => {
        const client = await connect(connection);
        const { rows } = await client.query("SELECT current_user::text AS role");
        await disconnect(client);
        return rows[0]?.role;
      };
      expect(await who()).toBe(role);

      await admin.query(`ALTER ROLE ${role} PASSWORD 'second'`);
      // Between the two steps of a rotation: refused, and to be tried again.
      await expect(connect(connection)).rejects.toMatchObject({
        code: "POSTGRES_AUTHENTICATION",
        retry: "retry",
      });
      await put(arn, { ...place, password: "second" });
      expect(await who()).toBe(role);

      await put(arn, { ...place, username: `${role}_clone`, password: "third" });
      await expect(connect(connection)).rejects.toMatchObject({ code: "SECRET_CHANGED", retry: "restart" });
      await admin.query(`DROP ROLE ${role}`);
      await admin.end();
    });
  });

  test("without a place, as RDS makes it for a master user: the environment names it", async () => {
    const arn = await secret({ username: "postgres", password: "pw" });
    const named = { PGHOST: "db.example.com", PGDATABASE: "shop" };
    const options = await databaseConnection({
      ...environment,
      ...named,
      TRIBUTARY_DATABASE_SECRET_ARN: arn,
    });
    expect(options).toMatchObject({ host: "db.example.com", port: 5432, tls: { mode: "verify-full" } });
    await expect(
      databaseConnection({ ...environment, TRIBUTARY_DATABASE_SECRET_ARN: arn }),
    ).rejects.toMatchObject({ code: "CONFIGURATION" });
  });

  test.for([
    ["no JSON", "hunter2"],
    ["no password", { username: "me", pass: "hunter2" }],
    ["a port that is none", { username: "me", password: "hunter2", port: "x" }],
  ] as const)("with %s is refused without showing it", async ([, value]) => {
    const arn = await secret(value);
    const error = await readSecret(secrets, arn).catch((thrown: Error) => thrown);
    expect(error).toMatchObject({ code: "SECRET_FORMAT", retry: "stop" });
    expect(JSON.stringify([error, (error as Error).message, (error as Error).stack])).not.toContain(
      "hunter2",
    );
  });

  test("that is not there stops; an answer that does not come may come later", async () => {
    const gone = "arn:aws:secretsmanager:us-east-1:000000000000:secret:nothing-abcdef";
    await expect(readSecret(secrets, gone)).rejects.toMatchObject({
      code: "SECRET_UNAVAILABLE",
      retry: "stop",
    });
    const nowhere = await secretsManagerClient({ ...environment, AWS_ENDPOINT_URL: "http://127.0.0.1:9" });
    await expect(readSecret(nowhere, gone)).rejects.toMatchObject({ retry: "retry" });
  });
});
