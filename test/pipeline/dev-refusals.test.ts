import { once } from "node:events";
import { rm } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import pg from "pg";
import { afterEach, describe, expect, it } from "vitest";
import { dropDevTraces } from "../../lib/local/dev/server-traces.ts";
import { removeEmbeddedPostgres } from "../../lib/local/embedded-postgres.ts";
import { connectionFromUrl } from "../../lib/source/postgres/link/connection.ts";
import { eventually } from "../eventually.ts";
import { freshDatabase, withPostgres } from "../postgres/server.ts";
import { OpenSource, definition as sourceDefinition } from "../postgres/source.ts";
import { throughAnotherAddress } from "./another-address.ts";
import { DevProject, interrupt } from "./dev-project.ts";

const definition = (source = 'postgres({ tables: ["public.orders"] })', entry = "functions/orders.ts") => `
import { definePipeline, postgres, triggers } from "tributary-cdc/pipeline";
export default definePipeline({
  name: "mine",
  source: ${source},
  consumers: [{ name: "orders", entry: "${entry}", topics: ["*"] }],
});
`;
const FILES = {
  "tributary.config.ts": definition(),
  "functions/orders.ts": `
    import { consumer, Operation } from "tributary-cdc";
    export const handler = consumer("orders").on("*", [Operation.Create], () => {}).handler();`,
};

describe("tributary dev refuses, and touches nothing", () => {
  withPostgres((server) => {
    let project: DevProject;
    afterEach(async () => {
      await project.remove();
    });

    async function refused(
      args: readonly string[],
      environment: Readonly<Record<string, string>> = {},
      folder = ".",
    ) {
      const { code, stdout, stderr } = await project.run(["dev", ...args], environment, folder).finished;
      expect(stdout).not.toMatch(/starting (capture|the Kinesis)/);
      expect(stderr).not.toMatch(/^ +at .*lib\//m);
      return { code, stderr };
    }
    async function database(setup = "CREATE TABLE orders (id int PRIMARY KEY)") {
      const url = await freshDatabase(server());
      const client = new pg.Client({ connectionString: url });
      await client.connect();
      await client.query(setup);
      return { url, client };
    }
    const dropSlots = (client: pg.Client) =>
      client.query(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()",
      );
    const traces = async (client: pg.Client) => {
      const { rows } = await client.query(
        "SELECT slot_name FROM pg_replication_slots WHERE database = current_database() UNION ALL SELECT pubname FROM pg_publication",
      );
      return rows;
    };

    it("a folder without a definition, one without a package.json, and wrong fields of it", async () => {
      project = await DevProject.make();
      expect(await refused([])).toEqual({
        code: 2,
        stderr: expect.stringMatching(/no pipeline definition found: looked for tributary\.config\.ts/),
      });
      await project.write(FILES);
      await rm(project.path("package.json"));
      expect(await refused([])).toEqual({ code: 2, stderr: expect.stringMatching(/no package\.json/) });
      await project.write({
        "package.json": "{}",
        "tributary.config.ts": definition('postgres({ tabels: ["a"] })'),
      });
      expect(await refused([])).toEqual({ code: 2, stderr: expect.stringContaining("source.tabels") });
      await project.write({ "tributary.config.ts": definition(undefined, "functions/none.ts") });
      expect(await refused([])).toEqual({ code: 2, stderr: expect.stringContaining("functions/none.ts") });
      expect(await project.read(".tributary/state.json")).toBe("");
    });

    it("handlers that cannot be built or loaded, with file and line", async () => {
      project = await DevProject.make({ ...FILES, "functions/orders.ts": '\nimport "not-there";\n' });
      const { url, client } = await database();
      expect(await refused(["--database-url", url])).toEqual({
        code: 1,
        stderr: expect.stringMatching(
          /functions\/orders\.ts:2:\d+: Could not resolve "not-there"[\s\S]*npm install not-there\)/,
        ),
      });
      await project.write({ "functions/orders.ts": '\n\nthrow new Error("no configuration");\n' });
      const { code, stderr } = await project.run(["dev", "--database-url", url]).finished;
      expect(code).toBe(1);
      expect(stderr).toMatch(
        /throws while it loads: Error: no configuration\s+at .*functions\/orders\.ts:3:/,
      );
      expect(await traces(client)).toEqual([]);
      await client.end();
    });

    it("no server, a wrong password, no database, missing rights, no such table", async () => {
      project = await DevProject.make(FILES);
      const { url, client } = await database("CREATE TABLE others (id int PRIMARY KEY)");
      const changed = (parts: Partial<URL>) => ["--database-url", Object.assign(new URL(url), parts).href];
      const unreachable = await refused(changed({ port: "1" }));
      expect(unreachable).toEqual({ code: 1, stderr: expect.stringContaining("127.0.0.1:1") });
      const wrong = await refused(changed({ password: "guessed" }));
      expect(wrong).toEqual({ code: 1, stderr: expect.stringContaining("POSTGRES_AUTHENTICATION") });
      expect(wrong.stderr).not.toContain("guessed");
      const missing = await refused(changed({ pathname: "/nowhere" }));
      expect(missing).toEqual({ code: 1, stderr: expect.stringContaining("nowhere") });
      const typo = await refused(["--database-url", url]);
      expect(typo).toEqual({ code: 1, stderr: expect.stringContaining("public.orders") });
      await client.query("CREATE TABLE orders (id int PRIMARY KEY)");
      await client.query("DROP ROLE IF EXISTS weak; CREATE ROLE weak LOGIN PASSWORD 'weak'");
      const weak = changed({ username: "weak", password: "weak" });
      expect(await refused(weak)).toEqual({
        code: 1,
        stderr: expect.stringContaining('ALTER ROLE "weak" WITH REPLICATION'),
      });
      expect(await refused(["--database-url", "mysql://me@localhost/mine"])).toMatchObject({ code: 2 });
      expect(await traces(client)).toEqual([]);
      await client.end();
    });

    it("a server that is not this machine's without a bound of WAL, or with tables that others read", async () => {
      project = await DevProject.make(FILES);
      const { url, client } = await database();
      const there = await throughAnotherAddress(server().port, url);
      const unbounded = await refused(["--database-url", there.url]);
      expect(unbounded).toEqual({ code: 1, stderr: expect.stringContaining("max_slot_wal_keep_size") });
      expect(unbounded.stderr).toContain("use a server of this machine");
      expect(unbounded.stderr).not.toContain("acceptUnboundedWal");
      await project.write({
        "tributary.config.ts": definition('triggers({ tables: ["public.orders"] })'),
      });
      const shared = await refused(["--database-url", there.url]);
      expect(shared).toEqual({
        code: 1,
        stderr: expect.stringMatching(/reads by triggers[\s\S]*DEV_REMOTE/),
      });
      await there.close();
      expect(await traces(client)).toEqual([]);
      await client.end();
    });

    it("options that contradict each other, and a port that is taken", async () => {
      project = await DevProject.make(FILES);
      const both = await refused([
        "--schema",
        "schema.sql",
        "--port",
        "5000",
        "--database-url",
        server().url,
      ]);
      expect(both).toEqual({ code: 2, stderr: expect.stringMatching(/--schema: .*\n.*--port: /) });
      const none = await refused(["--schema", "none.sql"]);
      expect(none).toEqual({ code: 2, stderr: expect.stringContaining("none.sql") });
      expect(await refused(["--port", "70000"])).toMatchObject({ code: 2 });
      expect(await refused(["--clean"])).toEqual({
        code: 2,
        stderr: expect.stringContaining("--database-url"),
      });
      const taken = createServer().listen(0, "127.0.0.1");
      await once(taken, "listening");
      const { port } = taken.address() as AddressInfo;
      expect(await refused(["--port", String(port)])).toEqual({
        code: 1,
        stderr: expect.stringContaining(`Port ${port} on 127.0.0.1 is taken`),
      });
      taken.close();
      await removeEmbeddedPostgres(JSON.parse(await project.read(".tributary/state.json")).dataDirectory);
    });

    it("a state directory of another version, of another database, and one that cannot be written", async () => {
      project = await DevProject.make(FILES);
      const { url, client } = await database();
      await project.write({ ".tributary": "in its place" });
      expect(await refused(["--database-url", url])).toEqual({
        code: 1,
        stderr: expect.stringMatching(/\.tributary cannot be written: [\s\S]*DEV_STATE_UNWRITABLE/),
      });
      await rm(project.path(".tributary"));
      await project.write({ ".tributary/state.json": '{ "version": 7, "id": "abcdef" }' });
      const other = await refused(["--database-url", url]);
      expect(other).toEqual({ code: 1, stderr: expect.stringContaining("version 7") });
      expect(other.stderr).toContain("--fresh");
      const anew = await project.dev("--database-url", url, "--fresh");
      expect((await interrupt(anew)).code).toBe(0);
      const state = {
        version: 1,
        id: "abcdef",
        pipeline: "mine",
        database: "elsewhere:5432/app",
        ready: true,
      };
      await project.write({ ".tributary/state.json": JSON.stringify(state) });
      expect(await refused(["--database-url", url])).toEqual({
        code: 2,
        stderr: expect.stringContaining("another database, elsewhere:5432/app"),
      });
      await client.end();
    });

    it("a slot of its name that somebody else reads from", async () => {
      project = await DevProject.make(FILES);
      const { url, client } = await database();
      const state = { version: 1, id: "abcdef" };
      await project.write({ ".tributary/state.json": JSON.stringify(state) });
      const name = "tributary_dev_mine_abcdef";
      const colleague = await OpenSource.open(url, {
        pipeline: sourceDefinition(url, { slot: name, publication: name, tables: ["public.orders"] }),
      });
      const { code, stderr } = await refused(["--database-url", url]);
      expect({ code, stderr }).toEqual({
        code: 1,
        stderr: expect.stringContaining(`"${name}" is in use by process`),
      });
      const fresh = await refused(["--database-url", url, "--fresh"]);
      expect(fresh).toEqual({ code: 1, stderr: expect.stringContaining("SLOT_IN_USE") });
      expect(await traces(client)).toHaveLength(2);
      // As it says: this folder may be a copy of the colleague's.
      expect(fresh.stderr).toContain("remove .tributary/ here");
      await rm(project.path(".tributary"), { recursive: true });
      const run = await project.dev("--database-url", url);
      expect((await interrupt(run)).code).toBe(0);
      expect(await traces(client)).toHaveLength(4);
      // A reader that ends meanwhile is that of a run that has just ended.
      const dropping = dropDevTraces(connectionFromUrl(url), name);
      const looks = async () => {
        const { rows } = await client.query(
          "SELECT FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE '%FROM pg_replication_slots s%'",
        );
        return rows.length > 0;
      };
      await Promise.race([dropping, eventually(looks, { what: "a look at the slots" })]);
      await colleague.close();
      expect(await dropping).toEqual([name, name]);
      await dropSlots(client);
      await client.end();
    });
  });
});
