import { expect, test } from "vitest";
import { polling } from "../../lib/definition/pipeline.ts";
import { eachPostgres } from "./server.ts";
import { superuser } from "./source.ts";
import { startStandby } from "./standby.ts";
import { definitionOf, TablesReading } from "./tables-source.ts";

const pipelineOf = (more: { longestTransactionSeconds?: number } = {}) =>
  definitionOf(polling({ tables: ["public.*"], intervalMs: 50, ...more }));

eachPostgres("polling a replica", (server) => {
  test("is refused, since nobody sees there which transactions run, unless their length is given", async () => {
    const sql = await superuser(server().url);
    await sql.query(
      "CREATE TABLE t (id int PRIMARY KEY, updated_at timestamptz NOT NULL DEFAULT now()); CREATE INDEX ON t (updated_at, id); INSERT INTO t VALUES (1)",
    );
    await sql.end();
    const standby = await startStandby(server());
    try {
      await expect(TablesReading.open(standby.url, pipelineOf())).rejects.toMatchObject({
        problems: [{ code: "STANDBY", remedy: expect.stringContaining("source.longestTransactionSeconds") }],
      });
      const reading = await TablesReading.open(standby.url, pipelineOf({ longestTransactionSeconds: 1 }));
      await reading.until(1);
      expect(reading.events.map(({ after }) => after?.id)).toEqual([1]);
      await reading.close();
    } finally {
      await standby.stop("immediate");
    }
  });
});
