import { expect, test } from "vitest";
import { runCapture } from "../../lib/capture/capture.ts";
import { definePipeline } from "../../lib/definition/pipeline.ts";
import { addSourceKind } from "../../lib/source/index.ts";
import { connectionFromUrl } from "../../lib/source/postgres/link/connection.ts";
import { readCaptureRecord } from "../../lib/state/capture-record.ts";
import { eventually } from "../eventually.ts";
import { KeptLog } from "../postgres/source.ts";
import { MemoryStream } from "../unit/source/memory-stream.ts";
import { asked, toy, toyKind } from "../unit/source/toy/kind.ts";
import { emulatedAws } from "./emulated.ts";

const aws = emulatedAws();

test("the capture task runs a kind that it has never heard of: checked, under the lease, stored, acknowledged, closed", async () => {
  addSourceKind(toyKind);
  const { dynamodb } = aws();
  const stateTable = await aws().freshTable();
  const stream = new MemoryStream();
  const pipeline = definePipeline({ name: "box", source: toy({ tables: ["public.numbers"], rows: 4 }) });
  const ending = new AbortController();
  const run = runCapture(
    {
      pipeline,
      connection: connectionFromUrl("postgres://nobody@127.0.0.1:1/none"),
      stream: {
        writer: async () => stream,
        readTail: () => Promise.reject(new Error("it has no tail")),
        extent: () => Promise.reject(new Error("no consumer begins in its past")),
        findStart: () => Promise.reject(new Error("no consumer begins in its past")),
      },
      ...{ dynamodb, stateTable, log: new KeptLog() },
    },
    ending.signal,
  );
  await eventually(() => asked.includes("acknowledge row 0004"), { what: "the last row to be acknowledged" });
  ending.abort();
  await run;

  const rows = stream.records.flatMap(({ topic, events }) => (topic.startsWith("$") ? [] : events));
  expect(rows.map(({ after }) => after)).toEqual([1, 2, 3, 4].map((n) => ({ n })));
  expect([asked[0], asked[1], asked.at(-1)]).toEqual(["check", "open", "close"]);
  const { settings } = await readCaptureRecord({
    ...{ dynamodb, table: stateTable, pipeline: "box", signal: new AbortController().signal },
  });
  expect(settings).toMatchObject({
    source: "toy",
    tables: { "public.numbers": { topic: "box.public.numbers" } },
  });
});
