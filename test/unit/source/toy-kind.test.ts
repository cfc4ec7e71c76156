import { beforeAll, beforeEach, expect, test } from "vitest";
import { planTeardown, teardown } from "../../../lib/admin/teardown.ts";
import { unreadTopics } from "../../../lib/capture/unread-topics.ts";
import { ConfigurationError } from "../../../lib/change/tributary-error.ts";
import { definePipeline } from "../../../lib/definition/pipeline.ts";
import { routeTables } from "../../../lib/definition/route.ts";
import { addSourceKind, openSource, sourceKind } from "../../../lib/source/index.ts";
import { connectionFromUrl } from "../../../lib/source/postgres/link/connection.ts";
import { mergeSettings, settingsOf } from "../../../lib/state/settings.ts";
import { writeStream } from "../../../lib/stream/stream-writer.ts";
import { eventually } from "../../eventually.ts";
import { KeptLog, MemoryRecord } from "../../postgres/source.ts";
import { MemoryReading } from "../../postgres/tables-source.ts";
import { MemoryStream } from "./memory-stream.ts";
import { asked, type ToySource, toy, toyKind } from "./toy/kind.ts";

/*
 * A kind of source is a folder of its own and one line in the list: here is both, and nothing else knows the toy.
 */

beforeAll(() => addSourceKind(toyKind));
beforeEach(() => void asked.splice(0));

const connection = connectionFromUrl("postgres://toy@localhost/toy");
const define = (source: Partial<Omit<ToySource, "kind">> = {}) =>
  definePipeline({ name: "box", source: toy({ tables: ["public.numbers"], ...source }) });

test("its definition is parsed, with its defaults, and what is wrong with it is named", () => {
  expect(define().source).toEqual({
    kind: "toy",
    tables: ["public.numbers"],
    exclude: [],
    rows: 3,
    inUse: false,
  });
  expect(() => define({ rows: 0 })).toThrow(/source\.rows: write at least 1/);
  expect(() => define({ colour: "red" } as never)).toThrow(/source\.colour: no such field of a toy source/);
  expect(() => definePipeline({ name: "box", source: { kind: "doll" } })).toThrow(
    /source(\.kind)?: write postgres\(\{…\}\), .*outbox\(\{…\}\) or toy\(\{…\}\)/,
  );
});

test("a name that a kind has is no other kind's, and a kind that nobody added is refused", () => {
  expect(() => addSourceKind(toyKind)).toThrow(RangeError);
  expect(() => sourceKind({ kind: "doll" })).toThrow(ConfigurationError);
});

test("its changes go through the ordered writer, and what is stored is acknowledged to it", async () => {
  const pipeline = define({ rows: 5 });
  const ending = new AbortController();
  const log = new KeptLog();
  const { tables } = await sourceKind(pipeline.source).check({ connection, pipeline });
  const record = Object.assign(new MemoryRecord(), { reading: new MemoryReading() });
  const source = await openSource({ connection, pipeline, record, signal: ending.signal, log });
  const stream = new MemoryStream();
  const written = writeStream(source, stream, { writer: 7, packing: "batch", log }, ending.signal);
  await eventually(() => asked.includes("acknowledge row 0005"), { what: "the last row to be acknowledged" });
  ending.abort();
  await written;
  await source.close();

  expect(tables).toEqual([{ schema: "public", table: "numbers" }]);
  expect(stream.records.map(({ topic, writer }) => [topic, writer])).toEqual(
    stream.records.map(() => ["box.public.numbers", 7]),
  );
  expect(stream.records.flatMap(({ events }) => events.map(({ after }) => after))).toEqual(
    [1, 2, 3, 4, 5].map((n) => ({ n })),
  );
  expect(asked[0]).toBe("check");
  expect(asked[1]).toBe("open");
  expect(asked.at(-1)).toBe("close");
});

test("its settings are stored at first start, and another kind is refused from then on", () => {
  const now = (pipeline: ReturnType<typeof definePipeline>) =>
    settingsOf(sourceKind(pipeline.source).settings(pipeline.source), routeTables(pipeline), [
      { schema: "public", table: "numbers" },
    ]);
  const stored = mergeSettings("box", undefined, now(define()));
  expect(stored.source).toBe("toy");
  const log = definePipeline({ name: "box", source: { kind: "postgres", tables: ["public.*"] } });
  expect(() => mergeSettings("box", stored, now(log))).toThrow(/source\.kind/);
});

test("it is torn down as it says itself", async () => {
  const pipeline = define();
  const { signal } = new AbortController();
  const options = { pipeline, connection, lease: undefined, signal, log: () => {} };
  expect(await planTeardown(options)).toMatchObject({ removes: true });
  expect(asked).toEqual(["plan 1"]);
  await teardown(options);
  expect(asked.slice(1)).toEqual(["plan 1", "remove 1"]);
});

test("while it is in use it is not torn down", async () => {
  const { signal } = new AbortController();
  const pipeline = define({ inUse: true });
  const options = { pipeline, connection, lease: undefined, signal, log: () => {} };
  await expect(teardown(options)).rejects.toMatchObject({ code: "TOY_IN_USE" });
  expect(asked).toEqual(["plan 1"]);
});

test("topics that none of its tables goes to are told as for every kind", () => {
  const pipeline = definePipeline({
    name: "box",
    source: toy({ tables: ["public.numbers"] }),
    consumers: [{ name: "sum", entry: "sum.ts", topics: ["*.numbers", "*.letters"] }],
  });
  expect(unreadTopics(pipeline, [{ schema: "public", table: "numbers" }])).toMatchObject([
    { message: expect.stringContaining('"*.letters"') },
  ]);
});
