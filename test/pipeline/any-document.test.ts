import { afterEach, expect, test } from "vitest";
import { ALL_OPERATIONS } from "../../lib/consume/api/operation.ts";
import { DONE, invoke, redrive } from "../aws/consume/consumer-bench.ts";
import { emulatedAws } from "../aws/emulated.ts";
import { freshDatabase, withPostgres } from "../postgres/server.ts";
import { CaptureBench } from "./capture-bench.ts";

const aws = emulatedAws();
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

withPostgres((server) => {
  test("whatever document PostgreSQL takes, its row arrives; if it fails, it fails alone and is redriven", async () => {
    const bench = await CaptureBench.create(aws(), await freshDatabase(server()));
    cleanups.push(() => bench.end());
    await bench.client.query("CREATE TABLE documents (id int PRIMARY KEY, j json, b jsonb, note text)");
    await bench.capture().printed("streaming from slot");
    await bench.insert(1, 1);
    await bench.reached(1);
    const documents = [
      ["1", "1"],
      ["repeat('[', 10000) || '12345678901234567' || repeat(']', 10000)", "the same"],
      ["repeat('{\"a\":', 10000) || '[1e400, 0.1]' || repeat('}', 10000)", "objects"],
      ["'[0.' || repeat('0', 8000) || '1' || repeat('0', 8000) || '1]'", "digits"],
      [`'{"a" : 1.10, "a":\t"\\ud800 \uffff \u{1fffe}"}'`, "tel: 4915112345678901 \uffff"],
      ["'3'", "3"],
    ] as const;
    await bench.client.query("BEGIN");
    for (const [i, [json, note]] of documents.entries()) {
      await bench.client.query(
        `INSERT INTO documents SELECT $1, d::json, CASE WHEN d LIKE '%\\u%' THEN '{}' ELSE d::jsonb END, $2 FROM (SELECT (${json})::text AS d) AS x`,
        [i, note],
      );
    }
    await bench.client.query("COMMIT");
    await bench.insert(2, 2);
    await bench.reached(2);

    const broken = new Set([1, 2, 4]);
    const seen: number[] = [];
    const notes: unknown[] = [];
    const handler = bench.consumer.instance(
      (c) =>
        c.on("public.documents", ALL_OPERATIONS, (event) => {
          const id = Number(event.row?.id);
          if (broken.has(id)) throw new Error("poison");
          seen.push(id);
          notes[id] = event.row?.note;
        }),
      { ...bench.environment, TRIBUTARY_ATTEMPTS: "1" },
    );
    expect(await invoke(handler, await bench.records())).toEqual(DONE);
    expect(seen).toEqual([0, 3, 5]);
    expect((await bench.consumer.letters()).length).toBe(3);
    broken.clear();
    expect(await redrive(handler)).toMatchObject({ redriven: 3, done: 3 });
    expect(seen.toSorted()).toEqual([0, 1, 2, 3, 4, 5]);
    expect(notes).toEqual(documents.map(([, note]) => note));
  });
});
