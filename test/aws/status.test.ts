import { randomUUID } from "node:crypto";
import { expect, test } from "vitest";
import { Sightings } from "../../lib/admin/capture-standing.ts";
import type { PipelineResources } from "../../lib/admin/resources.ts";
import { pipelineStatus, type StatusOptions } from "../../lib/admin/status.ts";
import { START_OF_HISTORY } from "../../lib/change/position.ts";
import { ALL_OPERATIONS } from "../../lib/consume/api/operation.ts";
import { registerConsumers } from "../../lib/consume/fence/start-position.ts";
import { definePipeline, outbox, postgres } from "../../lib/definition/pipeline.ts";
import { type CaptureReport, type ReportSeat, writeCaptureReport } from "../../lib/state/capture-report.ts";
import { at, chain, packed, TOPIC } from "../unit/consume/records.ts";
import { consumerBench, invoke } from "./consume/consumer-bench.ts";
import { emulatedAws } from "./emulated.ts";

const aws = emulatedAws();
const { signal } = new AbortController();
const HOUR = 3_600_000;

/** A pipeline whose capture tasks report what a test says, and a consumer that has what a test gives it. */
async function scene({ topics = [TOPIC], source = postgres({ tables: ["public.orders"] }) as never } = {}) {
  const bench = await consumerBench(aws(), { startPosition: null });
  const { dynamodb, sqs } = aws();
  const { name, table } = bench;
  const define = (own: readonly string[]) =>
    definePipeline({
      name: "shop",
      source,
      consumers: [{ name, entry: "functions/one.ts", topics: [...own] }],
    });
  const handler = bench.instance((c) => c.on("*", ALL_OPERATIONS, () => {}));
  const resources: PipelineResources = {
    ...{ pipeline: "shop", place: "a test", stack: undefined, stateTable: table, stream: undefined },
    ...{ claimStore: undefined, captureDeadLetters: undefined, captures: [], consumers: {} },
  };
  return {
    bench,
    resources,
    register: (...own: string[]) =>
      registerConsumers(dynamodb, table, "shop", [{ name, topics: own }], START_OF_HISTORY),
    deliver: (commit: number) => invoke(handler, [packed(chain(1, commit))]),
    report: (over: Partial<CaptureReport> = {}, seat: ReportSeat = "holder") => {
      const written: CaptureReport = {
        ...{ state: "RUNNING", since: Date.now(), at: Date.now(), beat: 1, everyMs: 10_000 },
        ...{ task: "one", startedAt: Date.now() - HOUR },
        ...over,
      };
      return writeCaptureReport({ dynamodb, table, pipeline: "shop", slot: 1, seat }, written, null, signal);
    },
    look: (over: Partial<StatusOptions> = {}) =>
      pipelineStatus({ resources, pipeline: define(topics), dynamodb, sqs, patient: false, signal, ...over }),
  };
}
const change = (commit: number, ago: number, by = Date.now()) => ({
  partition: 0,
  position: at(commit),
  at: by - ago,
});

test("a consumer that got a topic more is late in those that it has", async () => {
  const { register, report, look } = await scene({ topics: [TOPIC, "shop.public.items"] });
  await register(TOPIC);
  const newest = { [TOPIC]: [change(2, 2 * HOUR)], "shop.public.items": [change(3, 1_000)] };
  await report({ newest });
  const { healthy, consumers } = await look();
  expect(consumers[0]?.lag).toMatchObject({ state: "behind", topic: TOPIC });
  expect(healthy).toBe(false);
});

test("the lag of a consumer is measured by one clock, however far those of task and reader are apart", async () => {
  for (const skew of [HOUR, -HOUR]) {
    const { register, report, look } = await scene();
    await register(TOPIC);
    const theirs = () => Date.now() + skew;
    const sightings = new Sightings();
    const now = (beat: number, ago: number) =>
      report({ at: theirs(), since: theirs(), beat, newest: { [TOPIC]: [change(2, ago, theirs())] } });
    await now(1, 2_000);
    await look({ sightings });
    await now(2, 2_000);
    const young = await look({ sightings });
    expect(young.captures[0]?.state).toBe("RUNNING");
    expect(young.healthy, `${skew}: ${JSON.stringify(young.consumers[0]?.lag)}`).toBe(true);
    await now(3, HOUR / 2);
    const late = await look({ sightings });
    expect(late.healthy, `${skew}: ${JSON.stringify(late.consumers[0]?.lag)}`).toBe(false);
  }
});

test("tasks side by side are watched before they are believed to be silent", async () => {
  const { report, register, look } = await scene({ source: outbox({}) as never });
  await register(TOPIC);
  const task = randomUUID();
  const beat = (n: number) => report({ task, at: Date.now() - HOUR, beat: n, everyMs: 1_000 }, { task });
  await beat(1);
  const looking = look({ patient: true, onWait: () => void beat(2) });
  const { captures, healthy } = await looking;
  expect(captures[0]).toMatchObject({ state: "RUNNING", tasks: 1 });
  expect(healthy).toBe(true);
});

test("is not healthy where it cannot be read how late a consumer is, or what the dead-letter queue of capture holds", async () => {
  const { register, report, look, resources } = await scene();
  await register(TOPIC);
  await report();
  expect((await look()).healthy).toBe(true);
  const captureDeadLetters = `${await aws().freshQueue()}-that-is-not-there`;
  const { healthy, unknown } = await look({ resources: { ...resources, captureDeadLetters } });
  expect(unknown).toMatchObject([{ part: "dead-letter queue of capture", needed: true }]);
  expect(healthy).toBe(false);
});

test("a partition that holds its very first change is told", async () => {
  const { bench, register, report, look } = await scene();
  await register(TOPIC);
  await report({ newest: { [TOPIC]: [change(1, 1_000)] } });
  const failing = bench.instance(
    (c) =>
      c.on("*", ALL_OPERATIONS, () => {
        throw new Error("it fails");
      }),
    { TRIBUTARY_POISON: "stop", TRIBUTARY_ATTEMPTS: "1" },
  );
  await invoke(failing, [packed(chain(1, 1))]);
  expect((await bench.stored()).hold, "it is held").toBeDefined();
  const { consumers, healthy } = await look();
  expect(consumers[0]).toMatchObject({ held: 1 });
  expect(healthy).toBe(false);
});
