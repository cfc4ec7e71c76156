import pg from "pg";
import { describe, expect, it } from "vitest";
import { eventually } from "../eventually.ts";
import { freshDatabase, withPostgres } from "../postgres/server.ts";
import { throughAnotherAddress } from "./another-address.ts";
import { DevProject, interrupt } from "./dev-project.ts";

const FILES = {
  "tributary.config.ts": `
    import { definePipeline, postgres } from "tributary-cdc/pipeline";
    export default definePipeline({
      name: "mine",
      source: postgres({ tables: ["public.orders"] }),
      consumers: [{ name: "orders", entry: "functions/orders.ts", topics: ["*"] }],
    });`,
  "functions/orders.ts": `
    import { appendFileSync } from "node:fs";
    import { fileURLToPath } from "node:url";
    import { consumer, Operation } from "tributary-cdc";
    const file = fileURLToPath(new URL("../../../../seen.txt", import.meta.url));
    export const handler = consumer("orders")
      .on("*", [Operation.Create], (event: { readonly row: { readonly id: number } }) => {
        appendFileSync(file, event.row.id + "\\n");
      })
      .handler();`,
};

describe("tributary dev on a server that is not this machine's", () => {
  withPostgres(
    (server) => {
      it("says that effects are real before there are any, and leaves a slot only where it is told to", async () => {
        const url = await freshDatabase(server());
        const client = new pg.Client({ connectionString: url });
        await client.connect();
        await client.query("CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders VALUES (0)");
        const there = await throughAnotherAddress(server().port, url);
        const project = await DevProject.make(FILES);
        const seen = async () => (await project.read("seen.txt")).split("\n").slice(0, -1);
        const traces = async () => {
          const { rows } = await client.query<{ name: string }>(
            "SELECT slot_name::text AS name FROM pg_replication_slots UNION ALL SELECT pubname::text FROM pg_publication",
          );
          return rows.map(({ name }) => name);
        };
        try {
          const first = await project.dev("--database-url", there.url);
          const lines = first.printed().split("\n");
          const warned = lines.findIndex((line) => line.includes("whatever they do is real"));
          expect(warned).toBeGreaterThan(0);
          expect(lines.findIndex((line) => line.startsWith("starting capture"))).toBeGreaterThan(warned);
          await client.query("INSERT INTO orders VALUES (1)");
          await eventually(async () => (await seen()).includes("1"), { what: "the first change" });
          expect((await interrupt(first)).code).toBe(0);
          expect(await traces()).toEqual([]);

          await client.query("INSERT INTO orders VALUES (2)");
          const second = await project.dev("--database-url", there.url, "--keep-slot");
          await client.query("INSERT INTO orders VALUES (3)");
          await eventually(async () => (await seen()).includes("3"), {
            what: "a change behind the second start",
          });
          expect((await interrupt(second)).code).toBe(0);
          expect(await traces()).toHaveLength(2);
          await client.query("INSERT INTO orders VALUES (4)");

          // Killed, it could drop nothing; what the slot kept is there.
          const third = await project.dev("--database-url", there.url);
          await eventually(async () => (await seen()).includes("4"), { what: "what was changed in between" });
          third.kill("SIGKILL");
          await third.finished;
          expect(await seen()).toEqual(["1", "3", "4"]);

          // Dropped by somebody else: nothing goes on in silence.
          await eventually(
            async () => {
              const { rows } = await client.query(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots",
              );
              return rows.length === 1;
            },
            { what: "a slot that nobody reads from" },
          );
          const refused = await project.run(["dev", "--database-url", there.url]).finished;
          expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining("DEV_STATE_OTHER") });
          expect(refused.stderr).toContain("--fresh");
        } finally {
          await project.remove();
          await there.close();
          await client.end();
        }
      });
    },
    { settings: { max_slot_wal_keep_size: "1GB" } },
  );
});
