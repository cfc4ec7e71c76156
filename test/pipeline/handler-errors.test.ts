import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { afterEach, describe, expect, it } from "vitest";
import { eventually } from "../eventually.ts";
import { freshDatabase, withPostgres } from "../postgres/server.ts";
import { npmStart, type Started } from "./npm-start.ts";

const HANDLER = fileURLToPath(new URL("handlers/failing.ts", import.meta.url));

describe("a user's first mistakes are told by npm start", () => {
  withPostgres((server) => {
    let run: Started | undefined;
    let directory = "";
    afterEach(async () => {
      try {
        run?.kill("SIGKILL");
      } catch {
        // It has ended.
      }
      await run?.finished;
      await rm(directory, { recursive: true, force: true });
    });

    /** A definition with one consumer whose file is `handlers/failing.ts`, on a database with `sales.orders`. */
    async function project(consumer: object = {}, source: object = {}) {
      const url = await freshDatabase(server());
      const client = new pg.Client({ connectionString: url });
      await client.connect();
      await client.query(
        "CREATE SCHEMA sales; CREATE TABLE sales.orders (id int PRIMARY KEY, status text); CREATE TABLE sales.audit (id int PRIMARY KEY)",
      );
      directory = await mkdtemp(join(tmpdir(), "tributary-errors-"));
      const file = join(directory, "mine.mjs");
      const definition = {
        name: "mine",
        source: {
          kind: "postgres",
          tables: ["sales.*"],
          acceptUnboundedWal: true,
          snapshot: "never",
          ...source,
        },
        consumers: [{ name: "orders", entry: HANDLER, topics: ["*.sales.orders"], attempts: 2, ...consumer }],
      };
      await writeFile(file, `export default ${JSON.stringify(definition)};`);
      return { args: ["--database-url", url, "--pipeline", file, "--drop-slot-on-exit"], client };
    }
    const seen = (started: Started, text: RegExp) =>
      eventually(() => text.test(started.printed()), { what: `${text} in the output` });

    it("what its handler threw, with its own lines, and the dead letter with what to do", async () => {
      const { args, client } = await project();
      run = npmStart(...args);
      await seen(run, /streaming from slot/);
      await client.query("INSERT INTO sales.orders VALUES (1, 'paid'), (2, 'lost'), (3, 'paid')");
      await seen(run, /dead letter: sales\.orders after 2 attempts: RangeError: there is no status "lost"/);
      // Nothing outlives this run, and no verb would find it.
      await seen(run, /it is gone with this run, at \w{34}; tributary dev keeps such changes/);
      expect(run.printed()).not.toContain("redrive --consumer");
      expect(run.printed()).toMatch(
        /a handler failed on sales\.orders, attempt 1 of 2 at \w{34}:\n {2}RangeError: there is no status "lost"\n {6}at statusOf \(test\/pipeline\/handlers\/failing\.ts:4:\d+\)/,
      );
      expect(run.printed()).not.toMatch(/at callHandler|attempt 2 of 2/);
      await client.query("UPDATE sales.orders SET status = 'sent' WHERE id = 1");
      await seen(run, /sales\.orders update: no handler matches/);
      await seen(run, /orders [\d.]+\/s, applied 2, .*unhandled 1/);
      await client.end();
      run.kill("SIGINT");
      await run.finished;
    });

    it("typos in .on() and in a topic, and a table that nobody takes", async () => {
      const { args, client } = await project({ topics: ["*.sales.orders", "mine.sale.orders"] });
      run = npmStart(...args);
      await seen(run, /no consumer takes the changes of sales\.audit\n/);
      expect(run.printed()).toContain(
        `consumer orders, ${HANDLER}: no captured table matches "sales.ordrs"; did you mean "sales.orders"?`,
      );
      expect(run.printed()).toContain(
        'consumer orders, topics in the definition: no captured table matches "mine.sale.orders"; did you mean "mine.sales.orders"?',
      );
      await client.end();
      run.kill("SIGINT");
      expect((await run.finished).code).toBe(0);
    });

    it("an error that capture logs and goes on behind", async () => {
      const { args, client } = await project(
        {},
        { tables: ["sales.orders", "sales.spans"], snapshot: "initial" },
      );
      await client.query(
        "CREATE TABLE sales.spans (span int4range NOT NULL, v int); ALTER TABLE sales.spans REPLICA IDENTITY FULL",
      );
      run = npmStart(...args);
      await seen(run, /capture: the backfill of sales\.spans .*refused.*\n\s+What to do: /);
      await client.query("INSERT INTO sales.orders VALUES (1, 'paid')");
      await seen(run, /orders [\d.]+\/s, applied 1,/);
      await client.end();
      run.kill("SIGINT");
      await run.finished;
    });

    it("a consumer's name that is not the definition's, before anything is read", async () => {
      const { args, client } = await project({ name: "ordrs" });
      run = npmStart(...args);
      const { code, stderr } = await run.finished;
      expect(code).toBe(1);
      expect(stderr).toContain(
        `The handler file ${HANDLER} is the consumer "orders", the definition calls it "ordrs"`,
      );
      expect(stderr).toContain('consumer("ordrs")');
      expect(stderr).not.toMatch(/^ +at /m);
      const { rows } = await client.query("SELECT slot_name FROM pg_replication_slots");
      expect(rows).toEqual([]);
      await client.end();
    });
  });
});
