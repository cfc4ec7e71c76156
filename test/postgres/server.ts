import { randomBytes } from "node:crypto";
import pg from "pg";
import { afterAll, beforeAll, describe } from "vitest";
import { type EmbeddedPostgres, startEmbeddedPostgres } from "../../lib/local/embedded-postgres.ts";
import {
  findPostgresBinaries,
  type PostgresBinaries,
  runnableBinaries,
} from "../../lib/local/postgres-binaries.ts";

interface Version {
  readonly name: string;
  readonly binaries: PostgresBinaries | undefined;
  readonly hint: string;
}

/**
 * Server versions the tests run on; undefined where not installed. `TRIBUTARY_TEST_POSTGRES` names others instead: `native`
 * directories of unpacked `@embedded-postgres` packages, with commas between.
 */
export const installed: readonly Version[] = process.env.TRIBUTARY_TEST_POSTGRES
  ? await Promise.all(process.env.TRIBUTARY_TEST_POSTGRES.split(",").map(unpacked))
  : [
      {
        name: "PostgreSQL 18",
        binaries: await findPostgresBinaries("embedded"),
        hint: "npm ci --include=optional",
      },
      {
        name: "PostgreSQL 15",
        binaries: await findPostgresBinaries("debian-15"),
        hint: "apt-get install postgresql-15",
      },
    ];

async function unpacked(native: string): Promise<Version> {
  const binaries = await runnableBinaries(native);
  return { name: `PostgreSQL ${binaries.major}`, binaries, hint: "" };
}

type Settings = Readonly<Record<string, string>>;

/**
 * A `describe` block for each server version, each with one server of its own for the whole block. A version
 * that is not installed is skipped with its reason in the name.
 */
export function eachPostgres(
  name: string,
  tests: (server: () => EmbeddedPostgres) => void,
  options: { settings?: Settings; initdbArguments?: readonly string[] } = {},
): void {
  for (const version of installed) {
    if (version.binaries === undefined) {
      describe.skip(`${name} (SKIPPED: ${version.name} is not installed: ${version.hint})`, () =>
        tests(() => {
          throw new Error(`${version.name} is not installed`);
        }));
      continue;
    }
    describe(`${name} (${version.name})`, () =>
      withPostgres(tests, { ...options, binaries: version.binaries }));
  }
}

/** One server, started before and stopped after the tests of the block it stands in. */
export function withPostgres(
  tests: (server: () => EmbeddedPostgres) => void,
  options: { settings?: Settings; initdbArguments?: readonly string[]; binaries?: PostgresBinaries } = {},
): void {
  let server: EmbeddedPostgres | undefined;
  beforeAll(async () => {
    server = await startEmbeddedPostgres(options);
  });
  afterAll(async () => {
    await server?.stop("immediate");
  });
  tests(() => {
    if (server === undefined) throw new Error("the server runs only inside tests and hooks");
    return server;
  });
}

/** Creates an empty database and gives its URL; `settings` become its defaults (`ALTER DATABASE … SET`). */
export async function freshDatabase(
  server: EmbeddedPostgres,
  options: { name?: string; encoding?: string; settings?: Settings } = {},
): Promise<string> {
  const name = options.name ?? `test_${randomBytes(6).toString("hex")}`;
  const database = pg.escapeIdentifier(name);
  const client = new pg.Client({ connectionString: server.url });
  await client.connect();
  try {
    const encoding = pg.escapeLiteral(options.encoding ?? "UTF8");
    await client.query(`CREATE DATABASE ${database} TEMPLATE template0 LOCALE 'C' ENCODING ${encoding}`);
    for (const [setting, value] of Object.entries(options.settings ?? {})) {
      await client.query(
        `ALTER DATABASE ${database} SET ${pg.escapeIdentifier(setting)} = ${pg.escapeLiteral(value)}`,
      );
    }
  } finally {
    await client.end();
  }
  const url = new URL(server.url);
  url.pathname = `/${encodeURIComponent(name)}`;
  return url.toString();
}
