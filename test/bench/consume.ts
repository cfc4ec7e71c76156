import { spawn } from "node:child_process";
import { once } from "node:events";
import { loadavg } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { startServingChild } from "../../lib/local/child.ts";
import type { Run, RunResult } from "./consume/child.ts";
import { POWERTOOLS } from "./consume/subjects.ts";
import type { Bench } from "./main.ts";
import { installPeers } from "./peers.ts";

const CHILD = fileURLToPath(new URL("./consume/child.ts", import.meta.url));
const DYNAMODB = new URL("../../lib/local/emulators/dynamodb.ts", import.meta.url);
const SIZES = [100, 1_000, 10_000];
/** One after the other, larger batches take minutes and show nothing new. */
const MOST_IN_ORDER = 1_000;

interface Line extends Pick<Run, "way" | "effect" | "shape"> {
  /** `beside`: Tributary as it stands in the folder of `--beside`. */
  readonly subject: Run["subject"] | "beside";
}

/** What is measured for each size of batch. Powertools knows no packing: one event is one record. */
const LINES: readonly Line[] = [
  { subject: "tributary", way: "on", effect: "no-op", shape: "batch" },
  { subject: "tributary", way: "on", effect: "async no-op", shape: "batch" },
  { subject: "tributary", way: "on", effect: "upsert", shape: "batch" },
  { subject: "tributary", way: "onBatch", effect: "no-op", shape: "batch" },
  { subject: "tributary", way: "on", effect: "no-op", shape: "gzip" },
  { subject: "tributary", way: "on", effect: "no-op", shape: "none" },
  { subject: "powertools", way: "in parallel", effect: "no-op", shape: "none" },
  { subject: "powertools", way: "in parallel", effect: "upsert", shape: "none" },
  { subject: "powertools", way: "in order", effect: "no-op", shape: "none" },
];

interface Measured extends Line {
  readonly batch: number;
  /** Medians over the rounds. */
  readonly eventsPerSecond: number;
  readonly writesPer1000: number;
  readonly readsPer1000: number;
  readonly peakMB: number;
  readonly payloadMB: number;
  /** CPU time of the function's process for an event, in microseconds. */
  readonly cpuMicros: number;
  readonly eventsPerSecondOfRounds: readonly number[];
}

/** What a consumer takes of the stream, beside Powertools batch with idempotency on the same DynamoDB emulator. */
export const consume: Bench = {
  about:
    "The Lambda handler on records of 64 partitions: events/s, DynamoDB requests, memory; beside Powertools batch with idempotency.",
  options: {
    rounds: { type: "string", default: "3" },
    seconds: { type: "string", default: "3" },
    sizes: { type: "string", default: SIZES.join() },
    /** `tributary` or `powertools` alone. */
    subject: { type: "string" },
    /** `no-op`, `async no-op` or `upsert` alone. */
    effect: { type: "string" },
    /** A folder with another checkout, installed: the same runs with its library, in turn with this one's. */
    beside: { type: "string" },
    /** A folder: each run's CPU profile goes there. */
    profile: { type: "string" },
  },
  async run(say, { rounds, seconds, sizes, subject, effect, beside, profile }) {
    // Each next to its twin, so that both meet the same minute.
    const lines = LINES.flatMap((line): Line[] =>
      beside === undefined || line.subject !== "tributary" ? [line] : [line, { ...line, subject: "beside" }],
    ).filter(
      (line) =>
        (subject === undefined || line.subject === subject || line.subject === "beside") &&
        (effect === undefined || line.effect === effect),
    );
    if (lines.length === 0) throw new RangeError(`nothing is measured with ${subject} and ${effect}`);
    const peers = lines.some((line) => line.subject === "powertools")
      ? await installPeers("powertools", POWERTOOLS)
      : "";
    const measured: Measured[] = [];
    for (const batch of String(sizes).split(",").map(Number)) {
      const found = new Map<Line, RunResult[]>();
      // Alternating, and each second round backwards, so that whatever else the machine does meets all alike.
      for (let round = 0; round < Number(rounds); round++) {
        for (const line of round % 2 === 0 ? lines : lines.toReversed()) {
          if (line.way === "in order" && batch > MOST_IN_ORDER) continue;
          const results = found.get(line) ?? [];
          found.set(line, results);
          const child =
            line.subject === "beside" ? join(String(beside), "test/bench/consume/child.ts") : CHILD;
          const run = {
            ...line,
            subject: line.subject === "powertools" ? line.subject : "tributary",
          } as const;
          results.push(await runOnce(child, { ...run, batch, seconds: Number(seconds) }, peers, profile));
        }
      }
      say(`batches of ${batch} events (load ${loadavg()[0]?.toFixed(1)}):`);
      for (const [line, results] of found) {
        const one = summary(line, batch, results);
        measured.push(one);
        say(`  ${describe(one)}`);
      }
    }
    const result = { ...ratios(measured), load: loadavg()[0], measured };
    say(JSON.stringify({ ...result, measured: undefined }));
    return result;
  },
};

/** Each run on an emulator of its own: what earlier runs stored slows nobody down. */
async function runOnce(
  childPath: string,
  run: Omit<Run, "place">,
  peers: string,
  profile: unknown,
): Promise<RunResult> {
  const dynamodb = await startServingChild(DYNAMODB, { environment: { AWS_REGION: "us-east-1" } });
  try {
    const environment = {
      AWS_ENDPOINT_URL_DYNAMODB: dynamodb.endpoint,
      AWS_REGION: "us-east-1",
      AWS_ACCESS_KEY_ID: "local",
      AWS_SECRET_ACCESS_KEY: "local",
    };
    const profiled = typeof profile === "string" ? ["--cpu-prof", `--cpu-prof-dir=${profile}`] : [];
    const argument = JSON.stringify({ ...run, place: { environment, peers } } satisfies Run);
    const child = spawn(process.execPath, [...profiled, childPath, argument], {
      env: { PATH: process.env.PATH, NODE_NO_WARNINGS: "1", POWERTOOLS_DEV: "false" },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let printed = "";
    let complaint = "";
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      complaint = (complaint + text).slice(-2000);
    });
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      printed += text;
    });
    const [code] = await once(child, "close");
    if (code !== 0) throw new Error(`the run of ${run.subject} ended with ${code}:\n${complaint}`);
    return JSON.parse(printed.trim().split("\n").at(-1) as string) as RunResult;
  } finally {
    await dynamodb.stop();
  }
}

function summary(line: Line, batch: number, results: readonly RunResult[]): Measured {
  const rates = results.map(({ events, seconds }) => Math.round(events / seconds));
  const per1000 = (count: (result: RunResult) => number) =>
    Number(median(results.map((result) => (count(result) * 1000) / result.events)).toFixed(3));
  return {
    ...line,
    batch,
    eventsPerSecond: median(rates),
    writesPer1000: per1000(({ writes }) => writes),
    readsPer1000: per1000(({ reads }) => reads),
    peakMB: median(results.map(({ peakMB }) => peakMB)),
    payloadMB: Number((median(results.map(({ payloadBytes }) => payloadBytes)) / 1e6).toFixed(2)),
    cpuMicros: Number(
      median(results.map(({ cpuSeconds, events }) => (cpuSeconds * 1e6) / events)).toFixed(2),
    ),
    eventsPerSecondOfRounds: rates,
  };
}

/** The goals: Tributary's slowest way beside the fastest of Powertools, in the largest batches of both. */
function ratios(measured: readonly Measured[]): object {
  const batch = Math.max(...measured.map((one) => one.batch));
  const of = (subject: string, effect: string, shape?: string) =>
    measured.filter(
      (one) =>
        one.batch === batch &&
        one.subject === subject &&
        one.effect === effect &&
        (shape === undefined || one.shape === shape),
    );
  const fastest = (found: readonly Measured[]) => Math.max(...found.map((one) => one.eventsPerSecond));
  const ratio = (effect: string) => {
    const [ours, theirs] = [of("tributary", effect, "batch"), of("powertools", effect)];
    if (ours.length === 0 || theirs.length === 0) return undefined;
    const on = ours.filter(({ way }) => way === "on");
    return {
      events: Number((fastest(on) / fastest(theirs)).toFixed(1)),
      writes: Number(
        (
          Math.min(...theirs.map((one) => one.writesPer1000)) /
          Math.max(...on.map((one) => one.writesPer1000))
        ).toFixed(0),
      ),
    };
  };
  const besides = of("tributary", "no-op").flatMap((one) => {
    const [before] = of("beside", "no-op", one.shape).filter(({ way }) => way === one.way);
    const share = (value: number, to: number) => Number((value / to).toFixed(3));
    return before
      ? {
          ...{ way: one.way, shape: one.shape },
          events: share(one.eventsPerSecond, before.eventsPerSecond),
          cpu: share(one.cpuMicros, before.cpuMicros),
        }
      : [];
  });
  const noop = ratio("no-op");
  const upsert = ratio("upsert");
  return {
    batch,
    eventsPerSecondNoOp: of("tributary", "no-op", "batch").find(({ way }) => way === "on")?.eventsPerSecond,
    ratioToPowertoolsNoOp: noop?.events,
    ratioToPowertoolsUpsert: upsert?.events,
    powertoolsWritesPerOurs: noop?.writes,
    ...(besides.length > 0 ? { ratioToBeside: besides } : {}),
  };
}

function describe(one: Measured): string {
  const name = `${one.subject} ${one.way}, ${one.effect}, ${one.shape === "none" ? "unpacked" : one.shape === "gzip" ? "packed, gzip" : "packed"}`;
  const rate = String(one.eventsPerSecond).padStart(7);
  return `${name.padEnd(44)} ${rate} events/s  ${one.writesPer1000} writes and ${one.readsPer1000} reads per 1,000  ${one.peakMB} MB  payload ${one.payloadMB} MB  CPU ${one.cpuMicros} µs`;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? (sorted[middle] as number)
    : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2;
}
