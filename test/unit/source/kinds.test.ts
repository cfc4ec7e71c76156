import { expect, test } from "vitest";
import { planTeardown, teardown } from "../../../lib/admin/teardown.ts";
import { definePipeline, outbox, polling, postgres, triggers } from "../../../lib/definition/pipeline.ts";
import { sourceKind, sourceKinds } from "../../../lib/source/index.ts";
import { connectionFromUrl } from "../../../lib/source/postgres/link/connection.ts";

const tables = ["public.*"];
const pipelines = [
  postgres({ tables, slots: 3, outbox: { messages: true } }),
  triggers({ tables }),
  polling({ tables }),
  outbox(),
].map((source) => definePipeline({ name: "shop", source }));

test("each kind of the list has a name of its own", () => {
  const names = sourceKinds().map(({ kind }) => kind);
  expect(new Set(names).size).toBe(names.length);
  expect(pipelines.map(({ source }) => sourceKind(source).kind)).toEqual(names);
});

test("only what is read through slots has several tasks, and names in the stored settings", () => {
  for (const pipeline of pipelines) {
    const { source } = pipeline;
    const kind = sourceKind(source);
    const slots = kind.throughSlots?.(pipeline).source;
    expect(kind.tasks(source)).toEqual(slots ? [1, 2, 3] : [1]);
    expect(kind.settings(source)).toMatchObject({ slot: slots?.slot, publication: slots?.publication });
    expect(kind.metrics).toBe(slots ? "slots" : "tables");
    expect(kind.operate.newEpoch(source)).toContain(slots?.slot ?? source.kind);
    const reading = { kind: source.kind, epoch: 2, database: "shop", confirmedLsn: 7n, place: null };
    const none = kind.operate.status(source, { slot: undefined, reading: undefined });
    expect(JSON.stringify(none)).not.toContain("null");
    if (source.kind === "polling")
      expect(kind.operate.status(source, { slot: undefined, reading })).toEqual({ epoch: 2, confirmed: "7" });
  }
});

test("several tasks share the lanes of an outbox alone: CDK and capture go by it", () => {
  expect(sourceKinds().flatMap(({ kind, reading }) => (reading.by === "lanes" ? kind : []))).toEqual([
    "outbox",
  ]);
});

test("the stored settings name every kind but the log, which came first, and hold the outbox's partitions", () => {
  const settings = pipelines.map(({ source }) => sourceKind(source).settings(source));
  expect(settings.map(({ source }) => source)).toEqual([undefined, "triggers", "polling", "outbox"]);
  expect(settings.map(({ beside }) => beside.length)).toEqual([1, 0, 0, 1]);
});

test("tearing down what only reads tables drops nothing, asks no server, and says whose what stands there is", async () => {
  const connection = connectionFromUrl("postgres://nobody@127.0.0.1:1/none");
  const { signal } = new AbortController();
  const said: string[] = [];
  for (const pipeline of pipelines.slice(1)) {
    const options = { pipeline, connection, lease: undefined, signal, log: () => {} };
    const plan = await planTeardown(options);
    expect(plan).toEqual({ removes: false, inUse: undefined });
    expect(await teardown(options)).toEqual(plan);
    const { describe, remains } = sourceKind(pipeline.source).operate.teardown;
    said.push((await describe([plan], pipeline, "will be")).join(" "));
    expect(remains).not.toBe("");
  }
  expect(said[0]).toContain("tributary triggers uninstall");
  expect(said[2]).toContain("tributary outbox uninstall");
  for (const line of said) expect(line).toContain("There is no slot");
});
