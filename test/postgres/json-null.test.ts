import { expect, test } from "vitest";
import type { ChangeEventJson } from "../../lib/change/event.ts";
import { JSON_NULL } from "../../lib/consume/api/verifiable-sink.ts";
import { type PipelineOf, polling, triggers } from "../../lib/definition/pipeline.ts";
import type { TriggersSource } from "../../lib/source/triggers/definition.ts";
import { installTriggers } from "../../lib/source/triggers/triggers.ts";
import { SourceTable } from "../../lib/verify/source-table.ts";
import { MemoryBackfills } from "./backfill-record.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { definition, OpenSource, superuser } from "./source.ts";
import { definitionOf, TablesReading } from "./tables-source.ts";

const TABLE = `CREATE DOMAIN settings AS jsonb; CREATE DOMAIN list AS settings[];
  CREATE TABLE a (id int PRIMARY KEY, j jsonb, k json, tags jsonb[], d settings, l list, t text, updated_at timestamptz NOT NULL DEFAULT now());
  ALTER TABLE a REPLICA IDENTITY FULL; CREATE INDEX ON a (updated_at, id)`;
const ROWS = `
  INSERT INTO a (id, t) VALUES (1, 'null');
  INSERT INTO a (id, j, k, tags, d, l) VALUES (2, 'null', ' null', ARRAY['null', NULL, '[null]']::jsonb[], 'null',
    ARRAY[NULL, 'null']::settings[]);
  INSERT INTO a (id, j, tags) VALUES (3, '"null"', ARRAY[ARRAY['1', NULL], ARRAY[NULL, 'null']]::jsonb[])`;
const EXPECTED = [
  [1, undefined],
  [2, ["j", "k", ["tags", 0], "d", ["l", 1]]],
  [3, [["tags", 1, 1]]],
];

const idAndNulls = ({ after, before, jsonNull }: ChangeEventJson) => [(after ?? before)?.id, jsonNull];
const wire = (change: { json: string }) => JSON.parse(`${change.json}}}`) as ChangeEventJson;

eachPostgres("a JSON null and NULL are told apart", (server) => {
  async function database() {
    const url = await freshDatabase(server());
    const client = await superuser(url);
    await client.query(TABLE);
    return { url, client };
  }

  test("in the log: inserts, both rows of an update, both halves of a key change, deletes", async () => {
    const { url, client } = await database();
    const source = await OpenSource.open(url);
    try {
      await client.query(ROWS);
      await client.query("UPDATE a SET j = NULL, t = 'x' WHERE id = 2; UPDATE a SET j = 'null' WHERE id = 1");
      await client.query("UPDATE a SET id = 4 WHERE id = 3; DELETE FROM a WHERE id = 4");
      await source.until(8);
      const events = source.changes.map(wire);
      expect(events.slice(0, 3).map(idAndNulls)).toEqual(EXPECTED);
      const whole = ["k", ["tags", 0], "d", ["l", 1]];
      expect(events.slice(3, 5).map((e) => [e.after?.j, e.jsonNull, e.before?.j, e.jsonNullBefore])).toEqual([
        [null, whole, null, ["j", ...whole]],
        [null, ["j"], null, undefined],
      ]);
      const place = [["tags", 1, 1]];
      expect(events.slice(5).map((e) => [e.op, e.jsonNull, e.jsonNullBefore])).toEqual([
        ["d", place, undefined],
        ["c", place, undefined],
        ["d", place, undefined],
      ]);
    } finally {
      await source.close();
      await client.end();
    }
  });

  test("in rows that a backfill reads", async () => {
    const { url, client } = await database();
    await client.query(ROWS);
    const source = await OpenSource.open(url, {
      pipeline: definition(url, { snapshot: "when-needed" }),
      backfill: { record: new MemoryBackfills() },
    });
    try {
      await source.until(3);
      const events = source.changes.map(wire).filter(({ op }) => op === "r");
      expect(events.map(idAndNulls)).toEqual(EXPECTED);
    } finally {
      await source.close();
      await client.end();
    }
  });

  test.each([
    ["triggers", definitionOf(triggers({ tables: ["public.*"], intervalMs: 50 }))],
    ["polling", definitionOf(polling({ tables: ["public.*"], intervalMs: 50 }))],
  ])("by %s", async (kind, pipeline) => {
    const { url, client } = await database();
    if (kind === "triggers")
      await installTriggers(client, pipeline as PipelineOf<TriggersSource>, { lockTimeoutMs: 5000 });
    const reading = await TablesReading.open(url, pipeline);
    try {
      await client.query(ROWS);
      const events = await reading.until(3);
      // Rows of one moment come in the order of their place on disk or of the index.
      expect(events.map(idAndNulls).sort(([a], [b]) => Number(a) - Number(b))).toEqual(EXPECTED);
    } finally {
      await reading.close();
      await client.end();
    }
  });

  test("by verify", async () => {
    const { client } = await database();
    await client.query(ROWS);
    await client.query("CREATE PUBLICATION p FOR TABLE a");
    const source = await SourceTable.open(client, "p", { schema: "public", table: "a" });
    const values = await Promise.all([1, 2, 3].map(async (id) => (await source.row({ id }))?.values));
    expect(values).toMatchObject([
      { j: null, k: null, tags: null, d: null, l: null, t: "null" },
      { j: JSON_NULL, k: JSON_NULL, tags: [JSON_NULL, null, [null]], d: JSON_NULL, l: [null, JSON_NULL] },
      {
        // A string of JSON as it is printed.
        j: '"null"',
        tags: [
          [1, null],
          [null, JSON_NULL],
        ],
      },
    ]);
    await client.end();
  });
});
