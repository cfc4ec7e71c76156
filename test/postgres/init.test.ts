import { execFile } from "node:child_process";
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { formatTable } from "../../lib/change/table-pattern.ts";
import { readDefinition } from "../../lib/definition/file.ts";
import { listTables } from "../../lib/init/database-tables.ts";
import { type InitOptions, init } from "../../lib/init/init.ts";
import { EXAMPLE_TABLE } from "../../lib/init/project-files.ts";
import { rowTypeMembers } from "../../lib/init/row-type.ts";
import { eachPostgres, freshDatabase } from "./server.ts";

const SCHEMA = `
  CREATE TABLE plain (id bigint PRIMARY KEY, name text);
  CREATE TABLE "Odd.Name" ("Id" int, "a ""b""" jsonb NOT NULL, PRIMARY KEY ("Id"));
  CREATE TABLE whole (a int); ALTER TABLE whole REPLICA IDENTITY FULL;
  CREATE TABLE by_index (a int NOT NULL, b int NOT NULL); CREATE UNIQUE INDEX by_b ON by_index (b) INCLUDE (a);
  ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_b;
  CREATE TABLE parts (at date, id int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
  CREATE TABLE parts_2026 PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
  CREATE SCHEMA billing; CREATE TABLE billing.invoices (id int PRIMARY KEY);
  CREATE TABLE no_key (a int);
  CREATE TABLE nothing (id int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING;
  CREATE UNLOGGED TABLE fleeting (id int PRIMARY KEY);
  CREATE TEMP TABLE passing (id int PRIMARY KEY);
  CREATE VIEW seen AS SELECT * FROM plain;`;

eachPostgres("tributary init on a database", (server) => {
  let url = "";
  let client: pg.Client;
  let root = "";
  let count = 0;
  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), "tributary-init-"));
    url = await freshDatabase(server());
    client = new pg.Client({ connectionString: url });
    await client.connect();
  });
  afterAll(async () => {
    await client.end();
    await rm(root, { recursive: true });
  });

  async function run(options: Partial<InitOptions>, answers?: string[]) {
    const directory = join(root, `shop-${++count}`);
    const said: string[] = [];
    await init(
      { directory, install: false, yes: answers === undefined, ...options },
      {
        say: (line) => void said.push(line),
        ask: async () => answers?.shift() ?? "",
      },
    );
    return { directory, said: said.join("\n") };
  }

  test("a database without tables is refused, and nothing is written", async () => {
    await expect(run({ databaseUrl: url })).rejects.toThrow(/no table that the role .* can see/);
    expect(await readdir(root)).toEqual([]);
  });

  test("tables are listed with key and size, those that can be captured first", async () => {
    await client.query(SCHEMA);
    await client.query(
      "INSERT INTO plain SELECT n, repeat('x', 100) FROM generate_series(1, 20000) n; ANALYZE plain",
    );
    const tables = await listTables(client);
    expect(tables.map((table) => [formatTable(table), table.key.join()])).toEqual([
      ["billing.invoices", "id"],
      ['public."Odd.Name"', "Id"],
      ["public.by_index", "b"],
      ["public.parts", "id,at"],
      ["public.plain", "id"],
      ["public.whole", ""],
      ["public.fleeting", "id"],
      ["public.no_key", ""],
      ["public.nothing", "id"],
    ]);
    const byName = new Map(tables.map((table) => [formatTable(table), table]));
    expect(byName.get("public.plain")).toMatchObject({ rows: 20_000, obstacle: undefined });
    expect(byName.get("public.plain")?.bytes).toBeGreaterThan(2_000_000);
    expect(byName.get("public.fleeting")?.obstacle).toContain("SET LOGGED");
    expect(byName.get("public.no_key")?.obstacle).toContain("ADD PRIMARY KEY");
    expect(byName.get("public.nothing")?.obstacle).toContain("NOTHING");
  });

  test("without a question all tables that can be captured are taken, and what was found is shown", async () => {
    const { directory, said } = await run({ databaseUrl: url });
    const { source, consumers, name } = await read(directory);
    expect(name).toBe(`shop-${count}`);
    expect(source.tables).toHaveLength(6);
    expect(source.tables).not.toContain("public.no_key");
    expect(consumers[0]).toMatchObject({ name: "invoices", entry: "src/invoices.ts" });
    expect(consumers[0]?.topics).toContain("*.public.Odd%2EName");
    expect(said).toMatch(/public\.plain +key id; \d+ MB, about 20,000 rows/);
  });

  test("--tables takes patterns, with the schema public where none is named", async () => {
    const { directory } = await run({ databaseUrl: url, tables: ["plain", "billing.*"] });
    expect((await read(directory)).source.tables).toEqual(["billing.invoices", "public.plain"]);
    // What cannot be captured is left out of what a pattern means; named alone it is refused.
    const all = await run({ databaseUrl: url, tables: ["public.*"] });
    expect((await read(all.directory)).source.tables).toHaveLength(5);
    await expect(run({ databaseUrl: url, tables: ["public.ordrs"] })).rejects.toThrow(
      /no table matches; there is .*public\.plain/,
    );
    await expect(run({ databaseUrl: url, tables: ["public.no_key"] })).rejects.toThrow(
      /public\.no_key cannot be captured: no primary key/,
    );
  });

  test("on a terminal tables are chosen by number, and a wrong number is asked for again", async () => {
    const { directory, said } = await run({ databaseUrl: url }, ["77", "8", "5, 1"]);
    expect((await read(directory)).source.tables).toEqual(["billing.invoices", "public.plain"]);
    expect(said).toContain("Write numbers from 1 to 9");
    expect(said).toContain("public.no_key cannot be captured");
  });

  test("on a terminal the database is asked for too", async () => {
    const { directory } = await run({}, [url, "5"]);
    expect((await read(directory)).source.tables).toEqual(["public.plain"]);
    const { directory: example } = await run({}, [""]);
    expect(await readdir(example)).toContain("schema.sql");
  });

  test("the handler's rows have the columns' types", async () => {
    const { directory } = await run({ databaseUrl: url, tables: ["public.*"] });
    const handler = await readFile(join(directory, "src", "Odd-Name.ts"), "utf8");
    expect(handler).toContain("export type OddNameRow = {");
    expect(handler).toContain("readonly Id: number; // integer, key");
    expect(handler).toContain(String.raw`readonly "a \"b\"": ColumnValue; // jsonb`);
    expect(handler).toContain("readonly name: string | null; // text");
  });

  test("the password is in .env alone, which is its owner's and which git leaves out", async () => {
    await client.query("CREATE ROLE reader LOGIN PASSWORD 'geheim''1'; GRANT SELECT ON plain TO reader");
    const secret = new URL(url);
    secret.username = "reader";
    secret.password = "geheim'1";
    const { directory, said } = await run({ databaseUrl: secret.href, tables: ["plain"] });
    const entries = await readdir(directory, { recursive: true, withFileTypes: true });
    const files = entries
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name));
    const texts = await Promise.all(files.map(async (file) => [file, await readFile(file, "utf8")] as const));
    const holding = texts.filter(([, text]) => text.includes("geheim")).map(([file]) => file);
    expect(holding).toEqual([join(directory, ".env")]);
    expect(said).not.toContain("geheim");
    expect((await stat(join(directory, ".env"))).mode & 0o777).toBe(0o600);
    const git = (...args: string[]) => promisify(execFile)("git", args, { cwd: directory });
    await git("init", "-q");
    expect((await git("check-ignore", ".env")).stdout.trim()).toBe(".env");
    const program = `process.loadEnvFile(".env"); console.log(new URL(process.env.DATABASE_URL).password)`;
    const environment = { ...process.env, DATABASE_URL: undefined };
    const { stdout } = await promisify(execFile)(process.execPath, ["-e", program], {
      cwd: directory,
      env: environment,
    });
    expect(decodeURIComponent(stdout.trim())).toBe("geheim'1");
  });

  test("an .env that is there gets the variable, unless it names another database", async () => {
    const first = await run({ databaseUrl: url, tables: ["plain"] });
    const text = await readFile(join(first.directory, ".env"), "utf8");
    const { directory } = first;
    for (const file of await readdir(directory)) await rm(join(directory, file), { recursive: true });
    await writeFile(join(directory, ".env"), "OTHER=1", { mode: 0o644 });
    await run({ databaseUrl: url, tables: ["plain"], directory });
    expect(await readFile(join(directory, ".env"), "utf8")).toBe(`OTHER=1\n${text}`);
    expect((await stat(join(directory, ".env"))).mode & 0o777).toBe(0o600);
    await writeFile(join(directory, ".env"), "DATABASE_URL=postgres://else/where\n");
    await expect(run({ databaseUrl: url, tables: ["plain"], directory })).rejects.toThrow(
      /\.env: it is there/,
    );
  });

  test.each(["DATABASE_URL = postgres://else/where", "export DATABASE_URL=postgres://else/where"])(
    "an .env that names another database in its own way is left as it is: %s",
    async (line) => {
      const directory = await mkdtemp(join(root, "env-"));
      await writeFile(join(directory, ".env"), `${line}\n`);
      await expect(run({ databaseUrl: url, tables: ["plain"], directory, name: "shop" })).rejects.toThrow(
        /\.env: it is there/,
      );
      expect(await readdir(directory)).toEqual([".env"]);
    },
  );

  test("an .env that git keeps gets no password", async () => {
    const directory = await mkdtemp(join(root, "kept-"));
    await writeFile(join(directory, ".env"), "PORT=1\n");
    const git = (...args: string[]) => promisify(execFile)("git", args, { cwd: directory });
    await git("init", "-q");
    await git("add", ".env");
    const options = { databaseUrl: url, tables: ["plain"], directory, name: "shop" };
    await expect(run(options)).rejects.toThrow(/git keeps \.env/);
    expect(await readFile(join(directory, ".env"), "utf8")).toBe("PORT=1\n");
    expect((await readdir(directory)).sort()).toEqual([".env", ".git"]);
    await git("rm", "--cached", ".env");
    await run(options);
    expect((await git("check-ignore", ".env")).stdout.trim()).toBe(".env");
  });

  test("a domain counts as what it is made of, however deep, and a type of the user's own as text", async () => {
    await client.query(`
      CREATE DOMAIN whole_number AS int; CREATE DOMAIN age AS whole_number; CREATE DOMAIN papers AS jsonb;
      CREATE SCHEMA theirs; CREATE TYPE theirs.bool AS ENUM ('yes', 'no');
      CREATE TABLE theirs.people (id int PRIMARY KEY, age age NOT NULL, papers papers, free theirs.bool NOT NULL)`);
    const people = (await listTables(client)).find(({ table }) => table === "people");
    if (!people) throw new Error("the table is not listed");
    expect(rowTypeMembers(people).replaceAll(/ *\/\/.*/g, "")).toBe(
      "  readonly id: number;\n  readonly age: number;\n  readonly papers: ColumnValue | null;\n  readonly free: string;",
    );
  });

  test("a key with a generated column is offered where PostgreSQL sends it", async () => {
    await client.query(
      "CREATE TABLE made (a int NOT NULL, g int GENERATED ALWAYS AS (a * 2) STORED PRIMARY KEY)",
    );
    const { rows } = await client.query<{ version: number }>(
      "SELECT current_setting('server_version_num')::int AS version",
    );
    const made = (await listTables(client)).find(({ table }) => table === "made");
    if ((rows[0]?.version ?? 0) >= 180_000) {
      expect(made?.obstacle).toBeUndefined();
      expect(made?.columns.map(({ name }) => name)).toEqual(["a", "g"]);
    } else expect(made?.obstacle).toContain("its key has the generated column g");
  });

  test("the example's table is the one that its schema makes", async () => {
    const { directory } = await run({});
    const example = new pg.Client({ connectionString: await freshDatabase(server()) });
    await example.connect();
    try {
      await example.query(await readFile(join(directory, "schema.sql"), "utf8"));
      const { bytes, rows, ...expected } = EXAMPLE_TABLE;
      expect(await listTables(example)).toEqual([expect.objectContaining(expected)]);
    } finally {
      await example.end();
    }
  });

  /** The definition, read without the package that it imports. */
  async function read(directory: string) {
    const pipeline = new URL("../../lib/definition/pipeline.ts", import.meta.url).href;
    const text = await readFile(join(directory, "tributary.config.ts"), "utf8");
    const file = join(directory, "as-here.mts");
    await writeFile(file, text.replace("tributary-cdc/pipeline", pipeline));
    return await readDefinition(file);
  }
});
