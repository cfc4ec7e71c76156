import { Batches, type Shape } from "./records.ts";
import { type Effect, type Place, powertools, tributary } from "./subjects.ts";

/** One run, in a process of its own so that its memory is its own: see `consume.ts`. */
export interface Run {
  readonly subject: "tributary" | "powertools";
  /** How handlers are called. */
  readonly way: "on" | "onBatch" | "in parallel" | "in order";
  readonly effect: Effect;
  readonly shape: Shape;
  /** Changes in an invocation. */
  readonly batch: number;
  /** Invocations are made until they took so many seconds together. */
  readonly seconds: number;
  readonly place: Place;
}

/** What a run found. */
export interface RunResult {
  readonly events: number;
  readonly invocations: number;
  readonly seconds: number;
  readonly writes: number;
  readonly reads: number;
  readonly peakMB: number;
  /** CPU time of this process while handlers ran, its collector's threads included. */
  readonly cpuSeconds: number;
  /** Bytes of an invocation's records as base64: Lambda takes 6 MB of payload. */
  readonly payloadBytes: number;
}

const run = JSON.parse(process.argv[2] ?? "{}") as Run;
const subject = await (run.subject === "tributary"
  ? tributary(run.place, run.effect, run.way === "onBatch" ? "onBatch" : "on")
  : powertools(run.place, run.effect, run.way === "in parallel"));
const batches = new Batches(run.shape);

/** A warm function is what is measured: so long it is called before. */
const WARM_MS = 1000;
const WARM_EVENTS = 1000;

const measured = { events: 0, invocations: 0, ms: 0, cpuMicros: 0, writes: 0, reads: 0, payloadBytes: 0 };
for (let warmMs = 0; warmMs < WARM_MS; ) warmMs += (await invoke(Math.min(run.batch, WARM_EVENTS))).ms;
while (measured.ms < run.seconds * 1000) {
  const before = { ...subject.requests };
  const { ms, cpuMicros, payloadBytes } = await invoke(run.batch);
  measured.events += run.batch;
  measured.invocations++;
  measured.ms += ms;
  measured.cpuMicros += cpuMicros;
  measured.writes += subject.requests.writes - before.writes;
  measured.reads += subject.requests.reads - before.reads;
  measured.payloadBytes = payloadBytes;
}
const { ms, cpuMicros, ...rest } = measured;
const peakMB = Math.round(process.resourceUsage().maxRSS / 1024);
const result: RunResult = { ...rest, seconds: ms / 1000, cpuSeconds: cpuMicros / 1e6, peakMB };
process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0));

async function invoke(changes: number) {
  const event = batches.next(changes);
  const payloadBytes = event.Records.reduce((sum, { kinesis }) => sum + kinesis.data.length, 0);
  const eventsBefore = subject.done.events;
  const cpu = process.cpuUsage();
  const started = performance.now();
  const { batchItemFailures } = await subject.handle(event);
  const ms = performance.now() - started;
  const { user, system } = process.cpuUsage(cpu);
  const events = subject.done.events - eventsBefore;
  if (batchItemFailures.length > 0 || events !== changes)
    throw new Error(`${events} of ${changes} events took effect, ${batchItemFailures.length} failures`);
  return { ms, cpuMicros: user + system, payloadBytes };
}
