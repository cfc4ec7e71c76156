import { GetSecretValueCommand, SecretsManagerClient } from "@aws-sdk/client-secrets-manager";
import pg from "pg";

/*
 * A function beside the database of the test: it makes what a pipeline finds (as a custom resource), and changes a row (asked by the test).
 * Statements are those of docs/10-deploy.md.
 */

/** What it is asked: by CloudFormation, or by the test. */
type Request = { readonly RequestType: "Create" | "Update" | "Delete" } | { readonly customer: Customer };
/** A row that is written. */
export interface Customer {
  readonly id: string;
  readonly email: string;
  readonly name: string;
}

interface Login {
  readonly username: string;
  readonly password: string;
}

export async function handler(request: Request): Promise<object> {
  if ("RequestType" in request && request.RequestType !== "Create") return {};
  const master = await login("MASTER_SECRET_ARN");
  const client = new pg.Client({
    ...{ user: master.username, password: master.password },
    ...{ host: process.env.PGHOST, port: Number(process.env.PGPORT), database: process.env.PGDATABASE },
    ssl: { rejectUnauthorized: true },
    connectionTimeoutMillis: 10_000,
    statement_timeout: 10_000,
  });
  await client.connect();
  try {
    if ("customer" in request) await write(client, request.customer);
    else await prepare(client);
  } finally {
    await client.end();
  }
  return {};
}

async function prepare(client: pg.Client): Promise<void> {
  const { username, password } = await login("CAPTURE_SECRET_ARN");
  const role = client.escapeIdentifier(username);
  await client.query(`
    CREATE TABLE public.customers (
      id bigint PRIMARY KEY, email text NOT NULL, name text NOT NULL,
      tier text NOT NULL DEFAULT 'standard', credit numeric(12, 2) NOT NULL DEFAULT 0
    )`);
  await client.query(`CREATE ROLE ${role} LOGIN PASSWORD ${client.escapeLiteral(password)}`);
  await client.query(`GRANT rds_replication TO ${role}`);
  await client.query(`GRANT USAGE ON SCHEMA public TO ${role}`);
  await client.query(`GRANT SELECT ON ALL TABLES IN SCHEMA public TO ${role}`);
  await client.query(`
    CREATE PUBLICATION tributary_integ FOR TABLE ONLY public.customers
    WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)`);
}

async function write(client: pg.Client, { id, email, name }: Customer): Promise<void> {
  await client.query("INSERT INTO public.customers (id, email, name) VALUES ($1, $2, $3)", [id, email, name]);
  await client.query("UPDATE public.customers SET tier = 'gold' WHERE id = $1", [id]);
}

async function login(variable: string): Promise<Login> {
  const client = new SecretsManagerClient();
  const { SecretString = "{}" } = await client.send(
    new GetSecretValueCommand({ SecretId: process.env[variable] }),
  );
  return JSON.parse(SecretString) as Login;
}
