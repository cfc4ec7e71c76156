import { execFile } from "node:child_process";
import { chown, copyFile, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import pg from "pg";
import { type EmbeddedPostgres, startEmbeddedPostgres } from "../../lib/local/embedded-postgres.ts";
import { serverUser } from "../../lib/local/server-user.ts";
import { createShop } from "../../lib/local/shop/schema.ts";

const run = promisify(execFile);

/** The shop's database, as the deployed capture task finds it: TLS with an authority of its own, a role for Tributary. */
export interface SourceDatabase {
  readonly host: "localhost";
  readonly port: number;
  /** PEM. */
  readonly certificateAuthorityFile: string;
  /** As the application: the superuser. */
  readonly client: pg.Client;
  /** Makes the role that reads the changes, as docs/05-postgres.md says. */
  createRole(name: string, password: string): Promise<void>;
  /** Gives that role the tables, and the publication as one that Tributary made: it may then move tables between slots. */
  giveTables(role: string): Promise<void>;
  stop(): Promise<void>;
}

const PUBLICATION = `
CREATE PUBLICATION tributary_shop
FOR TABLE ONLY customers, ONLY orders, ONLY order_items, ONLY cancellations
WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true, publish_generated_columns = stored)`;

/** Starts PostgreSQL with the shop's empty tables and, made by their owner, the publications of the example pipeline and of a second one. */
export async function startSourceDatabase(): Promise<SourceDatabase> {
  const certificates = await mkdtemp(join(tmpdir(), "tributary-certificates-"));
  const server = await startEmbeddedPostgres({ settings: { max_slot_wal_keep_size: "1GB" } });
  try {
    await turnOnTls(server, certificates);
    const client = new pg.Client({ connectionString: server.url });
    await client.connect();
    client.on("error", () => {});
    await createShop(client);
    await client.query(PUBLICATION);
    await client.query("CREATE PUBLICATION tributary_second FOR TABLE ONLY customers");
    return {
      host: "localhost",
      port: server.port,
      certificateAuthorityFile: join(certificates, "server.crt"),
      client,
      async createRole(name, password) {
        const [role, secret] = [client.escapeIdentifier(name), client.escapeLiteral(password)];
        await client.query(`CREATE ROLE ${role} LOGIN REPLICATION PASSWORD ${secret}`);
        await client.query(`GRANT USAGE ON SCHEMA public TO ${role}`);
        await client.query(`GRANT SELECT ON ALL TABLES IN SCHEMA public TO ${role}`);
      },
      async giveTables(name) {
        const role = client.escapeIdentifier(name);
        for (const table of ["customers", "orders", "order_items", "cancellations"])
          await client.query(`ALTER TABLE ${table} OWNER TO ${role}`);
        await client.query(`GRANT CREATE ON DATABASE postgres TO ${role}`);
        await client.query(`ALTER PUBLICATION tributary_shop OWNER TO ${role}`);
        await client.query(
          `COMMENT ON PUBLICATION tributary_shop IS 'Made by Tributary for the pipeline "shop"'`,
        );
      },
      async stop() {
        await client.end().catch(() => undefined);
        await server.stop("immediate");
        await rm(certificates, { recursive: true, force: true });
      },
    };
  } catch (error) {
    await server.stop("immediate");
    await rm(certificates, { recursive: true, force: true });
    throw error;
  }
}

/** A certificate for localhost that is its own authority. */
async function turnOnTls(server: EmbeddedPostgres, directory: string): Promise<void> {
  const [key, certificate] = [join(directory, "server.key"), join(directory, "server.crt")];
  const kind =
    "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost";
  await run("openssl", [
    ...kind.split(" "),
    ...["-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
  ]);
  const { uid, gid } = serverUser();
  for (const file of ["server.key", "server.crt"]) {
    const target = join(server.dataDirectory, file);
    await copyFile(join(directory, file), target);
    if (uid !== undefined && gid !== undefined) await chown(target, uid, gid);
  }
  await server.restart({ settings: { ssl: "on" } });
}
