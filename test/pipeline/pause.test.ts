import pg from "pg";
import { afterEach, describe, expect, it } from "vitest";
import { eventually } from "../eventually.ts";
import { freshDatabase, withPostgres } from "../postgres/server.ts";
import { DevProject, interrupt, says } from "./dev-project.ts";

const DEFINITION = `
import { definePipeline, postgres } from "tributary-cdc/pipeline";
export default definePipeline({
  name: "mine",
  source: postgres({ tables: ["public.orders"] }),
  topics: { partitions: 2 },
  consumers: [{ name: "orders", entry: "orders.ts", topics: ["*.public.orders"], timeoutSeconds: 1 }],
});
`;

/** Writes a line for each change to a file of the project. */
const HANDLER = `
import { appendFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { consumer, Operation } from "tributary-cdc";

const file = fileURLToPath(new URL("../../../../seen.txt", import.meta.url));
export const handler = consumer("orders")
  .on("*.public.orders", Operation.Create, (event) => appendFileSync(file, event.partition + " " + event.after.id + "\\n"))
  .handler();
`;

describe("consumer pause and resume", () => {
  withPostgres((server) => {
    let project: DevProject;
    let client: pg.Client | undefined;
    afterEach(async () => {
      await client?.end();
      client = undefined;
      await project.remove();
    });

    it("under load, over a restart: nothing is applied while it lasts, and each change once and in order behind it", async () => {
      const url = await freshDatabase(server());
      const database = new pg.Client({ connectionString: url });
      client = database;
      await database.connect();
      await database.query("CREATE TABLE orders (id int PRIMARY KEY)");
      project = await DevProject.make({ "tributary.config.ts": DEFINITION, "orders.ts": HANDLER });
      const seen = async () => (await project.read("seen.txt")).split("\n").slice(0, -1);
      const verb = async (...words: string[]) => {
        const { code, stdout, stderr } = await project.run(words).finished;
        return { code, stdout, stderr };
      };
      let last = 0;
      let writing = true;
      const first = await project.dev("--database-url", url);
      const load = (async () => {
        while (writing) await database.query("INSERT INTO orders SELECT $1 FROM pg_sleep(0.002)", [++last]);
      })();
      await eventually(async () => (await seen()).length > 50, { what: "changes that took effect" });

      const paused = await verb(
        ...["consumer", "pause", "--consumer", "orders"],
        ...["--by", "ada", "--reason", "the sink is new"],
      );
      expect(paused).toMatchObject({ code: 0, stderr: expect.stringContaining("waiting for") });
      expect(paused.stdout).toMatch(
        /^orders is paused, by ada since .* \("the sink is new"\)\. Nothing of it takes effect any more\.\n.*keeps them for 7 d: .*\(6 d 23 h from now\).*\n.*tributary consumer resume --consumer orders\n$/s,
      );
      await says(first, "orders: paused by ada since");
      // From here on nothing is applied, whatever is written.
      const before = await seen();
      const atPause = last;
      await eventually(() => last > atPause + 200, { what: "changes that wait" });
      const second = await verb("consumer", "pause", "--consumer", "orders", "--by", "bob");
      expect(second).toMatchObject({ code: 1, stdout: "" });
      expect(second.stderr).toMatch(/paused already, by ada since[\s\S]*PAUSED_ALREADY/);
      const status = JSON.parse((await verb("status", "--json")).stdout);
      expect(status).toMatchObject({
        healthy: false,
        consumers: [
          { paused: { by: "ada" }, retention: { retentionHours: 168, usedPercent: expect.any(Number) } },
        ],
        problems: [
          { message: expect.stringContaining("; 167 h of the stream's retention of 168 h are left") },
        ],
      });
      const redrive = await verb("redrive", "--consumer", "orders");
      expect(redrive.code).toBe(1);
      expect(redrive.stderr).toContain('"orders" is paused by ada');
      expect(redrive.stderr).toContain("consumer resume --consumer orders");
      expect(redrive.stderr).toContain("CONSUMER_PAUSED");
      expect(first.printed()).not.toContain("invocation failed");
      writing = false;
      await load;
      expect((await interrupt(first)).code).toBe(0);

      const third = await project.dev("--database-url", url);
      await says(third, "orders: paused by ada since");
      expect(await seen()).toEqual(before);
      const resumed = await verb("consumer", "resume", "--consumer", "orders", "--json");
      expect(resumed.code).toBe(0);
      expect(JSON.parse(resumed.stdout)).toMatchObject({
        consumer: "orders",
        by: "ada",
        reason: "the sink is new",
      });
      await eventually(async () => (await seen()).length >= last, { what: "all changes" });
      await says(third, "orders: goes on");
      const again = await verb("consumer", "resume", "--consumer", "orders");
      expect(again).toMatchObject({ code: 1, stderr: expect.stringContaining("NOT_PAUSED") });
      expect((await interrupt(third)).code).toBe(0);

      const all = (await seen()).map((line) => line.split(" ").map(Number) as [number, number]);
      expect(all.map(([, id]) => id).sort((a, b) => a - b)).toEqual(
        Array.from({ length: last }, (_, i) => i + 1),
      );
      for (const partition of [0, 1]) {
        const ids = all.flatMap(([of, id]) => (of === partition ? [id] : []));
        expect(ids).toEqual(ids.toSorted((a, b) => a - b));
      }
    });
  });
});
