import { execFile } from "node:child_process";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import pg from "pg";
import { afterEach, describe, expect, it } from "vitest";
import { removeEmbeddedPostgres } from "../../lib/local/embedded-postgres.ts";
import { eventually } from "../eventually.ts";
import { freshDatabase, withPostgres } from "../postgres/server.ts";
import { DevProject, interrupt, says } from "./dev-project.ts";

/*
 * Mistakes of the first hour as `tributary dev` meets them: what is printed, and that what it says to do helps. Those that are refused
 * before anything starts are in dev-refusals.test.ts; docs/09-local.md lists all.
 */

const run = promisify(execFile);

const definition = (topic = "*.public.orders", more = "") => `
import { definePipeline, postgres } from "tributary-cdc/pipeline";
export default definePipeline({
  name: "mine",
  source: postgres({ tables: ["public.orders"] }),
  consumers: [{ name: "orders", entry: "functions/orders.ts", topics: ["${topic}"]${more} }],
});
`;
/** Writes a line for each row that it gets to a file of the project. */
const handler = ({ name = "orders", pattern = "*.public.orders", body = "" } = {}) => `
import { appendFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { consumer, Operation } from "tributary-cdc";
const file = fileURLToPath(new URL("../../../../seen.txt", import.meta.url));
type Orders = { readonly row: { readonly id: number } };
export const handler = consumer("${name}")
  .on("${pattern}", [Operation.Create, Operation.Read], async (event: Orders) => {
    ${body}
    appendFileSync(file, event.row.id + "\\n");
  })
  .handler();
`;
const FILES = { "tributary.config.ts": definition(), "functions/orders.ts": handler() };

describe("a mistake of the first hour", () => {
  let project: DevProject;
  let client: pg.Client | undefined;
  afterEach(async () => {
    await client?.end();
    client = undefined;
    const state = await project.read(".tributary/state.json");
    await project.remove();
    const { dataDirectory } = state ? JSON.parse(state) : {};
    if (dataDirectory) await removeEmbeddedPostgres(dataDirectory);
  });

  async function start(url: string, files: Readonly<Record<string, string>> = {}): Promise<pg.Client> {
    const made = new pg.Client({ connectionString: url });
    made.on("error", () => {});
    client = made;
    await made.connect();
    await made.query("CREATE TABLE orders (id int PRIMARY KEY)");
    project = await DevProject.make({ ...FILES, ...files });
    return made;
  }
  const seen = async () => (await project.read("seen.txt")).split("\n").slice(0, -1);
  const isSeen = (id: string) => eventually(async () => (await seen()).includes(id), { what: `row ${id}` });
  const ended = (...args: readonly string[]) => project.run(["dev", ...args]).finished;

  describe("on a server that is ready", () => {
    withPostgres((server) => {
      it("another name for the consumer is refused with both; typos of topic and .on() are named with what was meant", async () => {
        const url = await freshDatabase(server());
        const client = await start(url, {
          "tributary.config.ts": definition("mine.public.ordrs"),
          "functions/orders.ts": handler({ name: "ordrs", pattern: "public.ordrs" }),
        });
        const refused = await ended("--database-url", url);
        expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining("FUNCTION_ENTRY") });
        expect(refused.stderr).toContain(
          'functions/orders.ts is the consumer "ordrs", the definition calls it "orders"',
        );
        expect(refused.stderr).toContain('consumer("orders") in the file');

        await project.write({ "functions/orders.ts": handler({ pattern: "public.ordrs" }) });
        const run = await project.dev("--database-url", url);
        await says(
          run,
          'consumer orders, topics in the definition: no captured table matches "mine.public.ordrs"; did you mean "mine.public.orders"?',
        );
        await says(
          run,
          'consumer orders, functions/orders.ts: no captured table matches "public.ordrs"; did you mean "public.orders"?',
        );
        await says(run, "no consumer takes the changes of public.orders");
        await interrupt(run);

        await project.write(FILES);
        const mended = await project.dev("--database-url", url);
        await client.query("INSERT INTO orders VALUES (1)");
        await isSeen("1");
        expect(mended.printed()).not.toContain("no captured table matches");
        expect((await interrupt(mended)).code).toBe(0);
      });

      it("a handler that never resolves is told with its time and what to do, and holds up no other key", async () => {
        const url = await freshDatabase(server());
        const client = await start(url, {
          "tributary.config.ts": definition("*.public.orders", ", timeoutSeconds: 2, attempts: 1"),
          "functions/orders.ts": handler({ body: "if (event.row.id === 2) await new Promise(() => {});" }),
        });
        const run = await project.dev("--database-url", url);
        await client.query("INSERT INTO orders VALUES (2)");
        await says(
          run,
          /HandlerTimeoutError: the handler was still running when [^\n]*time was over[^\n]*\(timeoutSeconds is 2\)/,
        );
        await says(run, "resolve every promise that it awaits");
        await says(run, /dead letter: public\.orders .*HandlerTimeoutError/);
        expect(run.printed()).not.toMatch(/^ +at .*deadline\.ts/m);
        await client.query("INSERT INTO orders VALUES (3)");
        await isSeen("3");
        // As the line of the dead letter says.
        await project.write({ "functions/orders.ts": handler() });
        await isSeen("2");
        expect((await interrupt(run)).code).toBe(0);
      });

      it("missing rights are named all at once, and what it says to run is enough", async () => {
        const url = await freshDatabase(server());
        const client = await start(url);
        await client.query("CREATE ROLE weak LOGIN PASSWORD 'weak'");
        const weak = Object.assign(new URL(url), { username: "weak", password: "weak" }).href;
        const refused = await ended("--database-url", weak);
        expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining("ROLE_REPLICATION") });
        const remedies = refused.stderr.match(/\b(?:ALTER ROLE|GRANT|CREATE PUBLICATION) .*?;/g) ?? [];
        expect(remedies).toHaveLength(3);
        for (const sql of remedies) await client.query(sql);
        const run = await project.dev("--database-url", weak);
        await client.query("INSERT INTO orders VALUES (1)");
        await isSeen("1");
        expect((await interrupt(run)).code).toBe(0);
      });

      it("rows that were there are missed: the start says so, and --fresh --snapshot reads them", async () => {
        const url = await freshDatabase(server());
        const client = await start(url);
        await client.query("INSERT INTO orders VALUES (1)");
        const first = await project.dev("--database-url", url);
        await says(first, "existing rows are not read (--snapshot reads them)");
        await client.query("INSERT INTO orders VALUES (2)");
        await isSeen("2");
        expect(await seen()).toEqual(["2"]);
        await interrupt(first);
        const { id } = JSON.parse(await project.read(".tributary/state.json"));
        const second = await project.dev("--database-url", url, "--fresh", "--snapshot");
        await says(second, `dropped tributary_dev_mine_${id}`);
        await isSeen("1");
        await client.query("INSERT INTO orders VALUES (3)");
        await isSeen("3");
        expect(JSON.parse(await project.read(".tributary/state.json")).id).not.toBe(id);
        const { rows } = await client.query(
          "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()",
        );
        expect(rows).toHaveLength(1);
        expect((await interrupt(second)).code).toBe(0);
      });
    });
  });

  describe("on a server that PostgreSQL installs", () => {
    withPostgres(
      (server) => {
        it("wal_level is not logical: what it says to run, and the restart, are enough", async () => {
          const { url } = server();
          const client = await start(url);
          const refused = await ended("--database-url", url);
          expect(refused).toMatchObject({
            code: 1,
            stderr: expect.stringMatching(/WAL_LEVEL: wal_level is replica/),
          });
          const remedy = /ALTER SYSTEM SET wal_level = '\w+'/.exec(refused.stderr)?.[0] ?? "";
          await client.query(remedy);
          await client.end();
          await server().restart();
          const run = await project.dev("--database-url", url);
          expect((await interrupt(run)).code).toBe(0);
        });
      },
      { settings: { wal_level: "replica" } },
    );
  });

  describe("without a database of one's own", () => {
    it("an error in schema.sql is named with its line, and the corrected file is run from its beginning", async () => {
      const schema = (table: string) =>
        `CREATE TABLE orders (id int PRIMARY KEY);\n\nCREATE ${table} others (id int);\n`;
      project = await DevProject.make({ ...FILES, "schema.sql": schema("TABEL") });
      const refused = await ended();
      expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining("DEV_SCHEMA") });
      expect(refused.stderr).toContain('schema.sql:3: syntax error at or near "TABEL"');
      await project.write({ "schema.sql": schema("TABLE") });
      const run = await project.dev();
      expect((await interrupt(run)).code).toBe(0);
    });

    it("Node 18 is told in one line with what to do, before anything is read", async () => {
      project = await DevProject.make();
      const old = project.path("node-18.cjs");
      const versions = '{ ...process.versions, node: "18.20.8" }';
      await writeFile(old, `Object.defineProperty(process, "versions", { value: ${versions} });`);
      const command = join(project.path("node_modules"), "tributary-cdc/package/bin/tributary.cjs");
      for (const verb of ["dev", "init"]) {
        const options = { cwd: project.directory };
        const refused = await run(process.execPath, ["-r", old, command, verb], options).catch(
          (error) => error,
        );
        expect(refused).toMatchObject({ code: 1, stdout: "" });
        expect(refused.stderr).toMatch(
          /^tributary needs Node 24 or newer; this is Node 18\.20\.8: npm install --save-dev node@24 .*\n$/,
        );
      }
    });
  });
});

const mounts = await canMount();
describe.skipIf(!mounts)(`a full disk${mounts ? "" : " (SKIPPED: no rights to mount a small one)"}`, () => {
  withPostgres((server) => {
    it("is told with the place and what to do, at the start and while it runs; with room nothing is lost", async () => {
      const url = await freshDatabase(server());
      const client = new pg.Client({ connectionString: url });
      await client.connect();
      await client.query("CREATE TABLE orders (id int PRIMARY KEY)");
      const project = await DevProject.make(FILES);
      const seen = async () => (await project.read("seen.txt")).split("\n").slice(0, -1);
      const isSeen = (id: string) =>
        eventually(async () => (await seen()).includes(id), { what: `row ${id}` });
      const place = project.path(".tributary");
      await mkdir(place);
      await run("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", place]);
      try {
        const full = await project.run(["dev", "--database-url", url]).finished;
        expect(full).toMatchObject({ code: 1, stderr: expect.stringContaining("DEV_STATE_UNWRITABLE") });
        expect(full.stderr).toMatch(/\.tributary\/build cannot be written: .*no space left on device/);
        expect(full.stderr).toContain("Make room on the disk");

        await run("mount", ["-o", "remount,size=32m", place]);
        const filling = await project.dev("--database-url", url);
        await client.query("INSERT INTO orders VALUES (1)");
        await isSeen("1");
        await run("dd", ["if=/dev/zero", `of=${join(place, "filling")}`, "bs=64k"]).catch(() => {});
        await client.query("INSERT INTO orders SELECT generate_series(2, 200)");
        const ended = await filling.finished;
        expect(ended).toMatchObject({ code: 1, stderr: expect.stringContaining("DEV_STATE_UNWRITABLE") });
        expect(ended.stderr).toMatch(/\.tributary\/\S+ cannot be written: .*no space left on device/i);

        await rm(join(place, "filling"));
        const roomy = await project.dev("--database-url", url);
        await isSeen("200");
        await eventually(async () => new Set(await seen()).size === 200, { what: "every row" });
        expect((await interrupt(roomy)).code).toBe(0);
      } finally {
        await client.end();
        await project.end();
        await run("umount", [place]);
        await project.remove();
      }
    });
  });
});

async function canMount(): Promise<boolean> {
  if (process.platform !== "linux" || process.getuid?.() !== 0) return false;
  const project = await DevProject.make();
  try {
    await run("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", project.directory]);
    await run("umount", [project.directory]);
    return true;
  } catch {
    return false;
  } finally {
    await project.remove();
  }
}
