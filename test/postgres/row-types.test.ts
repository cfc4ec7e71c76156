import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import type pg from "pg";
import { afterEach, expect, test } from "vitest";
import { rowTypes } from "../../lib/admin/row-types/row-types.ts";
import { parseExactJson } from "../../lib/consume/run/json.ts";
import { definePipeline, type Pipeline, type PipelineInput } from "../../lib/definition/pipeline.ts";
import { eachPostgres, freshDatabase, withPostgres } from "./server.ts";
import { definition, OpenSource, superuser } from "./source.ts";
import { SAMPLES } from "./type-samples.ts";

/*
 * The generated types are held against real events: each captured row is written down as a literal of its table's type, and the compiler,
 * in its strictest mode, is asked whether it is one.
 */

const ROOT = resolve(import.meta.dirname, "../..");
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

const SCHEMA = `
  CREATE EXTENSION hstore;
  CREATE TYPE mood AS ENUM ('sad', 'so "so"', 'ok');
  CREATE TYPE pair AS (a int, b text);
  CREATE DOMAIN price AS numeric(10, 2) CHECK (value >= 0);
  CREATE DOMAIN moods AS mood[];
  CREATE DOMAIN sure AS price NOT NULL;
  CREATE TABLE orders (
    id bigint PRIMARY KEY, mood mood NOT NULL, moods moods, price price NOT NULL, sure sure, pair pair, tags text[], grid int[],
    settings jsonb NOT NULL, notes json[], attributes hstore, ratio float8 NOT NULL, seen timestamptz, "odd ""name""" uuid,
    note text NOT NULL, total numeric(12, 2) NOT NULL, any_digits numeric, doubled bigint GENERATED ALWAYS AS (id * 2) STORED,
    secret text, flag boolean, "__proto__" int, line interval, span int4range, blob bytea);
  COMMENT ON TABLE orders IS E'What was ordered.\\nEnds a comment: */ export const broken = 1;';
  COMMENT ON COLUMN orders.note IS 'In the customer''s words.';
  CREATE TABLE "Odd.Table" (a int, b text NOT NULL, "class" text, PRIMARY KEY (b, a));
  CREATE TABLE whole (id int PRIMARY KEY, note text NOT NULL); ALTER TABLE whole REPLICA IDENTITY FULL;
  CREATE TABLE keyless (n int, note text); ALTER TABLE keyless REPLICA IDENTITY FULL;
  CREATE TABLE parts (id int, day date, note text NOT NULL, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
  CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');`;

eachPostgres("types of rows", (server) => {
  async function scene(sql = SCHEMA, source: object = {}) {
    const url = await freshDatabase(server());
    const client = await superuser(url);
    cleanups.push(() => client.end());
    await client.query(sql);
    const pipeline = definition(url, { snapshot: "never", ...source });
    return { url, client, pipeline };
  }

  /** Rows of all changes that these statements bring, by table. */
  async function rowsOf(
    url: string,
    pipeline: ReturnType<typeof definition>,
    client: pg.Client,
    sql: string[],
  ) {
    const source = await OpenSource.open(url, { pipeline });
    cleanups.push(() => source.close());
    for (const statement of sql) await client.query(statement);
    await source.until(sql.length);
    return source.changes.map((change) => {
      const event = parseExactJson(`${change.json}}}`) as {
        after: Record<string, unknown>;
        unchanged?: string[];
        source: { schema: string; table: string; key: string[] };
      };
      return event;
    });
  }

  test("real events of every kind of value are of the generated types, and handlers compile with them", async () => {
    const { url, client, pipeline } = await scene(SCHEMA, {
      excludeColumns: { "public.orders": ["secret"] },
    });
    const { source, tables } = await rowTypes({ pipeline, client });
    expect(tables).toEqual(
      ["public.keyless", 'public."Odd.Table"', "public.orders", "public.parts", "public.whole"].sort(),
    );
    expect((await rowTypes({ pipeline, client })).source, "the same text each time").toBe(source);

    const large = "(SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 200))";
    const events = await rowsOf(url, pipeline, client, [
      `INSERT INTO orders VALUES (9007199254740993, 'so "so"', '{sad,NULL}', 1.50, 2, '(1,x)', '{a,NULL,"b c"}', '{{1,2},{3,NULL}}', '{"n": 12345678901234567890}',
         ARRAY['{"a": 1}'::json, 'null'], 'a=>1, b=>NULL', 'NaN', now(), gen_random_uuid(), ${large}, 1.00, 1e20, DEFAULT, 'hidden', true, 7, '1 day', '[1,5)', '\\xff')`,
      `INSERT INTO orders (id, mood, price, sure, settings, ratio, note, total) VALUES (2, 'ok', 0, 0, 'null', 1e300, '', 0)`,
      "UPDATE orders SET flag = false WHERE id = 9007199254740993",
      `INSERT INTO "Odd.Table" VALUES (1, 'x', NULL)`,
      `INSERT INTO whole VALUES (1, ${large})`,
      "UPDATE whole SET id = 1",
      "INSERT INTO keyless VALUES (NULL, 'x')",
      "INSERT INTO parts VALUES (1, '2026-05-05', 'x')",
    ]);
    // What makes a column optional is seen for real: it did not travel; with identity full it did.
    expect(events[2]?.unchanged).toEqual(["note"]);
    expect(events[5]?.unchanged).toBeUndefined();
    expect(source).toContain("readonly note?: string;");
    expect(source).toMatch(/interface WholeRow \{[^}]*readonly note: string;/);
    // Too few digits to be stored apart.
    expect(source).toMatch(/readonly total: string;/);
    expect(source).toMatch(/readonly any_digits\?: string \| null;/);

    const literals = events.map(
      ({ after, source: { schema, table } }, i) =>
        `export const row${i}: TableRows[${JSON.stringify(nameOf(schema, table))}] = ${literal(after)};`,
    );
    const keys =
      'export const key: OrdersKey = { id: "1" };\nexport const both: OddTableKey = { a: 1, b: "x" };';
    const imports = 'import type { OddTableKey, OrdersKey, TableRows } from "./rows.ts";';
    const files = {
      "rows.ts": source,
      "events.ts": [imports, keys, ...literals].join("\n"),
      "handler.ts": HANDLER,
    };
    expect(await compile(files)).toEqual([]);
    // The same rows are not of other types: the compiler was really asked.
    const wrong = literals.map((line) => line.replace(/TableRows\[.*?\]/, 'TableRows["public.whole"]'));
    const complaints = await compile({ ...files, "events.ts": [imports, keys, ...wrong].join("\n") });
    expect(complaints.length).toBeGreaterThanOrEqual(wrong.length - 2);
  });

  test("every built-in type has the TypeScript type of its values", async () => {
    const columns = Object.keys(SAMPLES).filter(
      (type) => SAMPLES[type]?.since === undefined && !type.startsWith("reg"),
    );
    const table = columns.map(
      (type) => `"c_${type}" pg_catalog."${type}", "a_${type}" pg_catalog."${type}"[]`,
    );
    const arrays = await withArrays(columns);
    const list = table.map((both, i) =>
      arrays.has(columns[i] as string) ? both : (both.split(", ")[0] as string),
    );
    const { url, client, pipeline } = await scene(`CREATE TABLE t (id int PRIMARY KEY, ${list.join(", ")})`);
    const most = Math.max(...columns.map((type) => SAMPLES[type]?.values.length ?? 0));
    const statements = Array.from({ length: most }, (_, i) => {
      const values = columns.flatMap((type) => {
        const all = SAMPLES[type]?.values ?? [];
        const value = `'${(all[i % all.length] as string).replaceAll("'", "''")}'::pg_catalog."${type}"`;
        return arrays.has(type) ? [value, `ARRAY[${value}, NULL]`] : [value];
      });
      return `INSERT INTO t VALUES (${i}, ${values.join(", ")})`;
    });
    await client.query("SET standard_conforming_strings = on");
    const events = await rowsOf(url, pipeline, client, statements);
    const { source } = await rowTypes({ pipeline, client });
    const rows = events.map(({ after }, i) => `export const row${i}: TRow = ${literal(after)};`);
    expect(
      await compile({
        "rows.ts": source,
        "events.ts": ['import type { TRow } from "./rows.ts";', ...rows].join("\n"),
      }),
    ).toEqual([]);

    async function withArrays(types: readonly string[]): Promise<ReadonlySet<string>> {
      const other = await superuser(server().url);
      try {
        const { rows: found } = await other.query<{ name: string }>(
          "SELECT typname::text AS name FROM pg_type WHERE typarray <> 0 AND typnamespace = 'pg_catalog'::regnamespace AND typname = ANY ($1)",
          [types],
        );
        return new Set(found.map(({ name }) => name));
      } finally {
        await other.end();
      }
    }
  });

  test("columns that do not travel are left out, and told", async () => {
    const { client, pipeline, url } = await scene(SCHEMA, {
      excludeColumns: { "public.orders": ["secret"] },
    });
    const { source } = await rowTypes({ pipeline, client, tables: ["public.orders"] });
    expect(source).toContain("secret (source.excludeColumns)");
    expect(source).not.toMatch(/readonly secret/);
    const { rows } = await client.query(
      "SELECT current_setting('server_version_num')::int >= 180000 AS stored",
    );
    // Stored generated columns travel from 18 on.
    expect(/readonly doubled/.test(source)).toBe(rows[0].stored);
    expect(/doubled \(generated\)/.test(source)).toBe(!rows[0].stored);
    // A publication of somebody else's says which columns travel.
    await client.query(
      `CREATE PUBLICATION ${pipeline.source.publication} FOR TABLE orders (id, note), whole`,
    );
    const bare = definition(url, { tables: ["public.orders", "public.whole"] });
    const published = await rowTypes({ pipeline: bare, client });
    expect(published.source).toContain("mood (not in the publication)");
    expect(published.source.match(/^ {2}readonly (?!"public)\S+/gm)).toEqual([
      ...["  readonly id:", "  readonly note?:", "  readonly id:", "  readonly note:"],
    ]);
  });

  test("rows are whole without the log, and any column may be absent where large changes lose some", async () => {
    const { client, pipeline, url } = await scene();
    const triggers = define({ kind: "triggers", tables: ["public.orders"] });
    expect((await rowTypes({ pipeline: triggers, client })).source).toContain("readonly note: string;");
    const omit = definition(url, {}, { stream: { oversize: "omit" } });
    const { source } = await rowTypes({ pipeline: omit, client, tables: ["public.whole"] });
    expect(source).toContain("readonly note?: string;");
    expect(source).toContain("readonly id: number;");
    const events = define({ kind: "outbox", table: "public.outbox" });
    await expect(rowTypes({ pipeline: events, client })).rejects.toMatchObject({ code: "CONFIGURATION" });
    await expect(rowTypes({ pipeline, client, tables: ["public.none"] })).rejects.toMatchObject({
      problems: [expect.objectContaining({ path: "--tables" })],
    });
    const missing = definition(url, { tables: ["public.missing"] });
    await expect(rowTypes({ pipeline: missing, client })).rejects.toMatchObject({ code: "PREFLIGHT" });
  });
});

withPostgres((server) => {
  test("tributary generate types writes the file, and --check tells when the tables have changed", async () => {
    const url = await freshDatabase(server());
    const client = await superuser(url);
    cleanups.push(() => client.end());
    await client.query("CREATE TABLE orders (id bigint PRIMARY KEY)");
    const folder = await mkdtemp(join(tmpdir(), "tributary-generate-"));
    cleanups.push(() => rm(folder, { recursive: true }));
    const source = { kind: "postgres", tables: ["public.*"] };
    await writeFile(
      join(folder, "pipeline.mjs"),
      `export default ${JSON.stringify({ name: "shop", source })};`,
    );
    const file = join(folder, "rows.ts");
    const run = async (...args: string[]) => {
      const child = promisify(execFile)(
        process.execPath,
        [join(ROOT, "lib/cli/main.ts"), "generate", "types", "--pipeline", "pipeline.mjs", ...args],
        { cwd: folder, env: { PATH: process.env.PATH ?? "", NODE_NO_WARNINGS: "1", DATABASE_URL: url } },
      );
      const {
        code = 0,
        stdout,
        stderr,
      } = (await child.catch((error: { code: number; stdout: string; stderr: string }) => error)) as {
        code?: number;
        stdout: string;
        stderr: string;
      };
      return { code, stdout, stderr };
    };
    expect(await run("--check")).toMatchObject({ code: 2, stderr: expect.stringContaining("--output") });
    expect(await run("--check", "--output", file)).toMatchObject({ code: 1, stdout: "" });
    const printed = await run();
    expect(printed).toMatchObject({ code: 0, stderr: "" });
    expect(await run("--output", file)).toMatchObject({ code: 0, stdout: "" });
    expect(await readFile(file, "utf8")).toBe(printed.stdout);
    expect(await run("--check", "--output", file)).toMatchObject({ code: 0 });
    await client.query("ALTER TABLE orders ADD COLUMN note text");
    const stale = await run("--check", "--output", file);
    expect(stale).toMatchObject({ code: 1, stderr: expect.stringContaining("without --check") });
    expect(await readFile(file, "utf8")).toBe(printed.stdout);
  });
});

const HANDLER = `
import { consumer, Operation, rowsOf } from "tributary-cdc";
import type { OrdersRow, TableRows } from "./rows.ts";

export const handler = consumer("orders")
  .on("public.orders", [Operation.Create, Operation.Update], rowsOf<OrdersRow>(), async (event) => {
    const { id, mood, price, settings, ratio, note, moods } = event.after;
    const text: string = id + price;
    const one: "sad" | 'so "so"' | "ok" = mood;
    const whole: Required<OrdersRow>["note"] = note ?? "left as it was";
    const float: number = typeof ratio === "number" ? ratio : Number.NaN;
    return [text, one, whole, float, settings, moods?.length, event.after["odd \\"name\\""]];
  })
  .onBatch("public.parts", { ...rowsOf<TableRows["public.parts"]>() }, async (events) => events.map(({ row }) => row?.day))
  .handler();
// @ts-expect-error: a numeric is text
export const wrong: number = (null as unknown as OrdersRow).total;
// @ts-expect-error: it may be absent
export const absent: string = (null as unknown as OrdersRow).note;
// @ts-expect-error: there is no such label
export const label: OrdersRow["mood"] = "glad";
`;

function define(source: object): Pipeline {
  return definePipeline({ name: "shop", source } as PipelineInput);
}

function nameOf(schema: string, table: string): string {
  return `${schema}.${/^[a-z_]\w*$/.test(table) ? table : `"${table}"`}`;
}

/** A value as TypeScript: bigints as such, and \`__proto__\` as a member. */
function literal(value: unknown): string {
  if (typeof value === "bigint") return `${value}n`;
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value !== "object" || value === null)
    return Object.is(value, -0) ? "-0" : (JSON.stringify(value) ?? "undefined");
  const members = Object.entries(value).map(
    ([name, member]) =>
      `${name === "__proto__" ? '["__proto__"]' : JSON.stringify(name)}: ${literal(member)}`,
  );
  return `{ ${members.join(", ")} }`;
}

/** Compiles files as a user's strict project does; gives the complaints. */
async function compile(files: Readonly<Record<string, string>>): Promise<string[]> {
  const folder = await mkdtemp(join(tmpdir(), "tributary-row-types-"));
  const compilerOptions = {
    ...{ strict: true, exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true, noEmit: true },
    ...{ target: "es2024", lib: ["es2024", "esnext.disposable"], module: "nodenext", skipLibCheck: true },
    ...{ allowImportingTsExtensions: true, types: ["node"], typeRoots: [join(ROOT, "node_modules/@types")] },
    paths: { "tributary-cdc": [join(ROOT, "lib/index.ts")] },
  };
  try {
    for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text);
    await writeFile(join(folder, "package.json"), '{ "type": "module" }');
    await writeFile(
      join(folder, "tsconfig.json"),
      JSON.stringify({ compilerOptions, files: Object.keys(files) }),
    );
    const { stdout } = await promisify(execFile)(
      process.execPath,
      [join(ROOT, "node_modules/typescript/bin/tsc"), "-p", folder, "--pretty", "false"],
      { cwd: folder, maxBuffer: 64 * 1024 * 1024 },
    ).catch((error: { stdout: string }) => error);
    return stdout
      .split("\n")
      .filter((line) => /^[\w./-]+\(\d+,\d+\): error/.test(line) && !line.startsWith(".."));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
