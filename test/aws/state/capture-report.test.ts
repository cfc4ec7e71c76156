import { afterEach, expect, test } from "vitest";
import { dynamodbClient } from "../../../lib/aws/clients.ts";
import type { CaptureMetrics } from "../../../lib/capture/capture-options.ts";
import { CaptureReporter, listening } from "../../../lib/capture/capture-reporter.ts";
import { defineError } from "../../../lib/change/tributary-error.ts";
import { readCaptureReports, type StoredReport } from "../../../lib/state/capture-report.ts";
import { eventually } from "../../eventually.ts";
import { emulatedAws } from "../emulated.ts";

const aws = emulatedAws();
const { signal } = new AbortController();
const lines: string[] = [];
const log = {
  info: () => {},
  warn: (line: string) => void lines.push(line),
  error: () => {},
};
class Broken extends defineError("BROKEN", "stop") {}
const reporters: CaptureReporter[] = [];
afterEach(async () => {
  for (const each of reporters.splice(0)) await each.end();
  lines.length = 0;
});

async function scene(options: { shared?: boolean } = {}) {
  const table = await aws().freshTable();
  const place = { dynamodb: aws().dynamodb, table, pipeline: "shop" };
  const reporter = (shared = options.shared ?? false) => {
    const made = new CaptureReporter({ ...place, slot: 1, shared, log, everyMs: 60_000 });
    reporters.push(made);
    return made;
  };
  const read = () => readCaptureReports({ ...place, signal });
  const until = (what: string, is: (found: readonly StoredReport[]) => boolean) =>
    eventually(async () => (is(await read()) ? await read() : undefined), { what, deadlineMs: 10_000 });
  return { table, reporter, read, until };
}

function metrics(
  source: Partial<CaptureMetrics["source"]> = {},
  stream: Partial<CaptureMetrics["stream"]> = {},
) {
  return {
    stream: {
      ...{ changes: 3, records: 1, bytes: 1, requests: 1, retries: 0, throttles: 0, oversize: 0 },
      ...{ tables: new Map(), bufferedBytes: 0, oldestUnacknowledgedMs: 0, acknowledgedPlace: 7n },
      ...{ acknowledgedCommitTimeMs: 5, newest: () => new Map() },
      ...stream,
    },
    source: {
      ...{ connected: true, receivedLsn: 9n, serverLsn: 9n, confirmedLsn: 7n, reconnects: 0, backfills: [] },
      ...{ holds: [], putAside: 0, rowsAsked: 0, walStatus: "reserved", safeWalBytes: 5 },
      ...{ walHeldBytes: 2, walLossSeconds: undefined, maxSlotWalKeepBytes: 64 },
      ...{ oldestTransactionSeconds: undefined, oldestTransactionPid: undefined },
      ...source,
    },
  } as CaptureMetrics;
}

const states = (found: readonly StoredReport[]) =>
  found.map(({ seat, report, failure }) => `${seat} ${report?.state}${failure ? ` ${failure.code}` : ""}`);

test("a task reports its states in turn, and takes the holder's seat with the lease", async () => {
  const { reporter, until } = await scene();
  const task = reporter();
  await until("starting", (found) => states(found).join() === "next STARTING");
  const heard = listening(log, (what, message) => task.waiting(what, message));
  heard.info("waiting for the lease", { waitsFor: "lease" });
  const [waits] = await until("waiting", (found) => states(found).join() === "next WAITING");
  expect(waits?.report?.waiting).toEqual({ for: "lease", message: "waiting for the lease" });
  task.tookLease(4);
  task.take(metrics());
  const [runs] = await until("running", (found) => states(found).join() === "holder RUNNING");
  expect(runs?.report).toMatchObject({
    generation: 4,
    figures: { changes: 3, lagBytes: 2, walStatus: "reserved", maxSlotWalKeepBytes: 64, safeWalBytes: 5 },
  });
  task.take(metrics({ holds: [{ topic: "shop.t" }] as never }));
  await until("holding", (found) => states(found).join() === "holder HOLDING");
  task.take(metrics({ connected: false }));
  const [away] = await until("away", (found) => states(found).join() === "holder WAITING");
  expect(away?.report?.waiting?.for).toBe("database");
  task.paused("by an operator");
  await until("paused", (found) => states(found).join() === "holder PAUSED");
  task.paused(undefined);
  await until("going on", (found) => states(found).join() === "holder STARTING");
  await task.end();
  await until("stopped", (found) => states(found).join() === "holder STOPPED");
});

test("the error that ended a task stands until one streams again, with code and remedy and no message of a stranger", async () => {
  const { reporter, until, read } = await scene();
  await reporter().end(new Broken({ message: "m", remedy: "r" }));
  const [failed] = await until("failed", (found) => states(found).join() === "next FAILED BROKEN");
  expect(failed?.failure).toMatchObject({ message: "m", remedy: "r", retry: "stop" });
  const again = reporter();
  await until("starting", (found) => states(found).join() === "next STARTING BROKEN");
  again.tookLease(2);
  again.take(metrics());
  await until("running", (found) => states(found).join() === "holder RUNNING");
  await again.end(new Error("Key (email)=(a@b.example) exists"));
  expect(JSON.stringify(await read())).not.toContain("a@b.example");
  expect((await read())[0]).toMatchObject({ report: { state: "FAILED" }, failure: { retry: "restart" } });
  const mended = reporter();
  mended.tookLease(3);
  mended.take(metrics());
  await until("mended", (found) => states(found).includes("holder RUNNING"));
});

test("a task that lost its lease does not write over its successor's report", async () => {
  const { reporter, until } = await scene();
  const [old, young] = [reporter(), reporter()];
  young.tookLease(9);
  young.take(metrics());
  await until("young", (found) => states(found).includes("holder RUNNING"));
  old.tookLease(8);
  await old.end(new Broken({ message: "m", remedy: "r" }));
  const found = await until("all", () => true);
  expect(states(found)).toContain("holder RUNNING");
});

test("tasks beside each other have a seat each, and what ended last stays", async () => {
  const { reporter, until } = await scene({ shared: true });
  const [one, other] = [reporter(), reporter()];
  for (const task of [one, other]) task.take(metrics({ kind: "tables" } as never));
  await until("both", (found) => states(found).join() === "task RUNNING,task RUNNING");
  await one.end(new Broken({ message: "m", remedy: "r" }));
  await until("one", (found) => states(found).join() === "holder FAILED BROKEN,task RUNNING");
});

test("an unreachable table disturbs nothing, and is logged once", async () => {
  const dynamodb = dynamodbClient(aws().environment);
  let calls = 0;
  dynamodb.middlewareStack.add(
    (next) => async (args) => {
      calls++;
      return await next(args);
    },
    { step: "initialize" },
  );
  const place = { dynamodb, table: "missing", pipeline: "shop", slot: 1, shared: false };
  const task = new CaptureReporter({ ...place, log, everyMs: 20 });
  task.take(metrics());
  await eventually(() => calls > 4, { what: "several tries" });
  expect(lines).toEqual([expect.stringContaining("ResourceNotFoundException")]);
  await task.end(new Broken({ message: "m", remedy: "r" }));
  expect(lines).toHaveLength(1);
  dynamodb.destroy();
});

test("a stream that has not answered since the start is waited for, with a lag, though there is no change to write yet", async () => {
  const { reporter, read, until } = await scene();
  const task = reporter();
  task.tookLease(1);
  const silent = (unansweredMs: number, acknowledgedPlace: bigint) =>
    task.take(metrics({}, { unansweredMs, acknowledgedPlace, acknowledgedCommitTimeMs: undefined }));
  silent(5_000, 7n);
  await until("running", (found) => states(found).join() === "holder RUNNING");
  silent(10_500, 7n);
  task.waiting("stream", "not answered");
  // The source's position moves on without changes.
  silent(11_500, 8n);
  await until("waiting", (found) => states(found).join() === "holder WAITING");
  expect((await read())[0]?.report?.figures?.lagMs).toBeGreaterThan(10_000);
  task.take(metrics({}, { unansweredMs: 0 }));
  await until("running again", (found) => states(found).join() === "holder RUNNING");
});

test("a record that is sent once more is no standstill; one that is refused for long is", async () => {
  const { reporter, until } = await scene();
  const task = reporter();
  task.tookLease(1);
  task.take(metrics({}, { oldestUnacknowledgedMs: 500 }));
  task.waiting("stream", "refused");
  task.take(metrics({}, { oldestUnacknowledgedMs: 1_500 }));
  await until("running", (found) => states(found).join() === "holder RUNNING");
  task.take(metrics({}, { oldestUnacknowledgedMs: 12_000 }));
  await until("waiting", (found) => states(found).join() === "holder WAITING");
  task.take(metrics({}, { oldestUnacknowledgedMs: 100, acknowledgedPlace: 8n }));
  await until("running again", (found) => states(found).join() === "holder RUNNING");
});
