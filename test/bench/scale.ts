import { availableParallelism, loadavg } from "node:os";
import { startEmbeddedPostgres } from "../../lib/local/embedded-postgres.ts";
import type { Backlog } from "./capture/backlog.ts";
import { Endpoints, pgRecvlogical, type Reading } from "./capture/clients.ts";
import type { Bench } from "./main.ts";
import { ROWS, type Row, type Step } from "./scale/rows.ts";
import { measureState, STATE_ROWS, type StateCost } from "./scale/state-rows.ts";
import { writeStep } from "./scale/step-backlog.ts";

/** A step of one row, medians over the rounds. */
interface Measured {
  readonly step: string;
  readonly changes: number;
  readonly changesPerSecond: number;
  /** Bytes of requests to Kinesis, as base64 in JSON, for a change. */
  readonly sentBytes: number;
  readonly requests: number;
  readonly records: number;
  readonly peakMB: number;
  /** Cost of the whole way, and of the capture program's process alone, relative to the cheapest step. */
  readonly cost: number;
  readonly cpuCost: number;
  readonly cpuMicros: number;
  /** The same backlog through pg_recvlogical, which decodes nothing: what grows there too is the server's. */
  readonly pgRecvlogicalPerSecond: number;
  readonly pgRecvlogicalCost: number;
}

type Found = Omit<Measured, "cost" | "cpuCost" | "pgRecvlogicalCost">;

/** How cost grows: the real capture program against an endpoint that acknowledges at once. */
export const scale: Bench = {
  about: `How the cost of a change grows, through the real capture program, on ${availableParallelism()} cores.`,
  options: {
    /** Rows, with commas between: see `ROWS` and `STATE_ROWS`. */
    only: { type: "string" },
    /** One is some ten minutes on a quiet machine. */
    rounds: { type: "string", default: "1" },
    quick: { type: "boolean" },
    /** A folder for CPU profiles of the program. */
    "cpu-prof": { type: "string" },
  },
  async run(say, { only, rounds, quick, "cpu-prof": profile }) {
    const isChosen = ({ name }: { readonly name: string }) =>
      only === undefined || String(only).split(",").includes(name);
    const chosen = ROWS.filter(isChosen);
    const ofState = STATE_ROWS.filter(isChosen);
    if (chosen.length + ofState.length === 0)
      throw new RangeError(
        `--only ${only}: write some of ${[...ROWS, ...STATE_ROWS].map(({ name }) => name)}`,
      );
    const found: Record<string, object> = {};
    for (const row of ofState) {
      say(`${row.name}: ${row.grows}`);
      const steps = await measureState(row);
      for (const { step, cost } of steps) say(`  ${String(step).padStart(9)} ${print(cost)}`);
      found[row.name] = { steps };
    }
    for (const row of chosen) {
      say(`${row.name}: ${row.grows}; cost by ${row.per === "byte" ? "byte sent" : row.per}`);
      const steps = row.steps(quick === true);
      const measured = await measure(row, steps, Number(rounds), profile, say);
      for (const one of measured) say(`  ${describe(one)}`);
      found[row.name] = {
        ratio: Math.max(...measured.map(({ cost }) => cost)),
        cpuRatio: Math.max(...measured.map(({ cpuCost }) => cpuCost)),
        peakMB: Math.max(...measured.map(({ peakMB }) => peakMB)),
        steps: measured,
      };
    }
    return { ...found, load: Number((loadavg()[0] ?? 0).toFixed(2)) };
  },
};

async function measure(
  row: Row,
  steps: readonly Step[],
  rounds: number,
  profile: unknown,
  say: (line: string) => void,
): Promise<Measured[]> {
  const nodeArguments = typeof profile === "string" ? ["--cpu-prof", `--cpu-prof-dir=${profile}`] : [];
  await using endpoints = await Endpoints.start();
  await using parts = new AsyncDisposableStack();
  const server = await startEmbeddedPostgres({
    settings: {
      max_wal_size: "64GB",
      checkpoint_timeout: "1h",
      autovacuum: "off",
      max_replication_slots: "50",
      max_wal_senders: "50",
      max_locks_per_transaction: "2048",
    },
  });
  parts.defer(() => server.stop("immediate"));
  const backlogs: Backlog[] = [];
  for (const [i, step] of steps.entries()) {
    const started = performance.now();
    backlogs.push(await writeStep(server, step, `step${i}`));
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    say(
      `    ${step.name}: ${step.changes} changes written in ${seconds} s, ${mb(backlogs[i]?.walBytes)} MB of log`,
    );
  }
  const readings = steps.map(() => ({ ours: [] as Reading[], theirs: [] as Reading[] }));
  // Alternating, so that whatever else the machine does meets all steps alike.
  for (let round = 0; round < rounds; round++) {
    for (const [i, step] of steps.entries()) {
      const backlog = backlogs[i] as Backlog;
      const slot = `bench_${round}_${i}`;
      const program = endpoints.tributary({
        ...{ packing: "batch", delayMs: 0, tables: ["public.*"], keep: false, nodeArguments },
        ...(step.partitions === undefined ? {} : { partitions: step.partitions }),
      });
      const { ours, theirs } = readings[i] as (typeof readings)[number];
      ours.push(await backlog.withSlot(slot, () => program.read(backlog, slot)));
      theirs.push(await backlog.withSlot(`${slot}_r`, () => pgRecvlogical.read(backlog, `${slot}_r`)));
    }
  }
  const found = steps.map((step, i) => {
    const { ours, theirs } = readings[i] as (typeof readings)[number];
    return summary(step, ours, theirs);
  });
  return relative(row, found);
}

function summary(step: Step, ours: readonly Reading[], theirs: readonly Reading[]): Found {
  const { changes } = step;
  const of = (value: (reading: Reading) => number) => median(ours.map(value));
  return {
    step: step.name,
    changes,
    changesPerSecond: Math.round(changes / of(({ seconds }) => seconds)),
    sentBytes: Math.round(of(({ endpoint }) => endpoint?.bytes ?? 0) / changes),
    requests: of(({ endpoint }) => endpoint?.requests ?? 0),
    records: of(({ endpoint }) => endpoint?.records ?? 0),
    peakMB: Math.round(of(({ peakMB }) => peakMB)),
    cpuMicros: Number((of(({ cpuSeconds }) => cpuSeconds) * (1e6 / changes)).toFixed(2)),
    pgRecvlogicalPerSecond: Math.round(changes / median(theirs.map(({ seconds }) => seconds))),
  };
}

function relative({ per }: Row, found: readonly Found[]): Measured[] {
  const by = (one: Found) => (per === "byte" ? one.sentBytes : 1);
  const costs = found.map((one) => 1 / one.changesPerSecond / by(one));
  const cpu = found.map((one) => one.cpuMicros / by(one));
  const theirs = found.map((one) => 1 / one.pgRecvlogicalPerSecond / by(one));
  const times = (all: readonly number[], i: number) =>
    Number(((all[i] as number) / Math.min(...all)).toFixed(2));
  return found.map((one, i) => ({
    ...one,
    cost: times(costs, i),
    cpuCost: times(cpu, i),
    pgRecvlogicalCost: times(theirs, i),
  }));
}

function describe(one: Measured): string {
  const rate = `${one.changesPerSecond}/s`.padStart(10);
  const ours = `${one.step.padStart(9)} ${rate}  ${one.cost} ×  ${one.peakMB} MB  CPU ${one.cpuMicros} µs (${one.cpuCost} ×)`;
  const sent = `${one.sentBytes} B sent a change, ${one.records} records in ${one.requests} requests`;
  return `${ours}; ${sent}; pg_recvlogical ${one.pgRecvlogicalPerSecond}/s (${one.pgRecvlogicalCost} ×)`;
}

function print(cost: StateCost): string {
  return Object.entries(cost)
    .map(([what, value]) => `${value} ${what}`)
    .join(", ");
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[sorted.length >> 1] as number;
}

function mb(bytes: number | undefined): number {
  return Math.round((bytes ?? 0) / 1e6);
}
