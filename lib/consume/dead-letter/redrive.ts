import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { PositionText } from "../../change/position.ts";
import { runSideBySide } from "../api/concurrency.ts";
import { errorFacts, jsonLogger } from "../api/context.ts";
import { StateItemError } from "../consume-errors.ts";
import { heldBy } from "../hold/hold.ts";
import { redriveHold } from "../hold/hold-redrive.ts";
import { failedOf, ParkedChains } from "../hold/parked-chains.ts";
import type { StoredDeadLetter } from "../hold/parked-change.ts";
import type { ParkedKey } from "../hold/parked-keys.ts";
import type { ConsumerInstance } from "../run/consumer-instance.ts";
import { Deadline } from "../run/deadline.ts";
import { tellObserver } from "../run/observer.ts";
import { PAUSE_SEEN_MS } from "../run/pause-flag.ts";
import { nameOf } from "../run/thrown.ts";
import { type ChainOutcome, ChainRedrive, type RedriveInstance, type RedriveRun } from "./redrive-chain.ts";
import { keysOf, type RedriveLease, RedriveLeases } from "./redrive-lease.ts";
import {
  type RedrivenLetter,
  type RedriveReport,
  type RedriveRequest,
  readRedriveRequest,
} from "./redrive-request.ts";

export { redriveMetricsLine } from "./redrive-metrics.ts";

/** Partitions that are worked on at the same time. */
const SIDE_BY_SIDE = 8;
/** No position is greater. */
const LAST = `${"F".repeat(24)}${"9".repeat(10)}`;
/** Milliseconds to wait for another redrive in a partition, or a handler that still runs there. */
const PATIENCE_MS = 2_000;
const POLL_MS = 100;
/** For giving back a lease after a redrive's end. */
const RELEASE_MS = 5_000;
/** Keys that a report names: a function's answer may have 6 MB. */
const REPORTED = 1_000;

/**
 * Brings parked and skipped changes to effect, key by key: each in its order, never over newer state. Twice is safe.
 * Invocations go on meanwhile.
 * @throws ConfigurationError when the request is not valid; FenceUnavailableError when the state table cannot be read at all.
 */
export async function runRedrive(
  parts: ConsumerInstance,
  event: RedriveRequest,
  remainingMs: number,
): Promise<RedriveReport> {
  const request = readRedriveRequest(event, parts.consumer);
  const table = parts.consumerTable;
  const instance = { ...parts, parking: new ParkedChains(table), leases: new RedriveLeases(table) };
  const started = performance.now();
  const deadline = new Deadline(remainingMs);
  const run: RedriveRun = {
    instance,
    deadline,
    owner: `redrive-${randomBytes(12).toString("base64url")}`,
    discard: request.discard ? { position: request.position } : undefined,
    left: request.limit ?? Number.POSITIVE_INFINITY,
    paused: false,
    redriven: 0,
    discarded: 0,
  };
  let watch: NodeJS.Timeout | undefined;
  try {
    const paused = request.dryRun ? undefined : await instance.pause.look(deadline.work, 0);
    if (paused) throw paused;
    watch = endAtPause(run);
    const { meant, unreadable } = await select(instance, request, deadline.work);
    const deadLetters = [...unreadable, ...(await (request.dryRun ? look(run, meant) : redrive(run, meant)))];
    const count = (outcome: RedrivenLetter["outcome"]) =>
      deadLetters.filter((deadLetter) => deadLetter.outcome === outcome).length;
    const open = count("open");
    const report: RedriveReport = {
      tributary: "redrive",
      consumer: instance.consumer,
      ...{ redriven: run.redriven, discarded: run.discarded },
      ...{
        done: count("done"),
        failed: count("failed"),
        open,
        busy: count("busy"),
        unhandled: count("unhandled"),
        superseded: count("superseded"),
      },
      more: !request.dryRun && open > 0,
      durationMs: Math.round(performance.now() - started),
      letters: deadLetters.slice(0, REPORTED),
    };
    await tellObserver(
      () => instance.observer.redrive?.(report),
      deadline.untilEndMs(),
      jsonLogger(instance.write, { consumer: instance.consumer }),
    );
    return report;
  } finally {
    clearInterval(watch);
    deadline.clear();
  }
}

/** Lets nothing more take effect once the consumer is paused (rule 62): the call under way is the last. */
function endAtPause(run: RedriveRun): NodeJS.Timeout {
  const look = async () => {
    // What cannot be asked now, is asked again.
    if (!(await run.instance.pause.look(run.deadline.work, 0).catch(() => undefined))) return;
    run.paused = true;
    run.left = 0;
  };
  return setInterval(() => void look(), PAUSE_SEEN_MS);
}

/** The dead letters that a request means; what cannot be read of them is told, too. */
async function select(
  instance: RedriveInstance,
  request: RedriveRequest,
  signal: AbortSignal,
): Promise<{ meant: StoredDeadLetter[]; unreadable: RedrivenLetter[] }> {
  const meant: StoredDeadLetter[] = [];
  const unreadable: RedrivenLetter[] = [];
  for await (const deadLetter of instance.parking.deadLetters(signal)) {
    if (deadLetter instanceof StateItemError) {
      const { topic = "", partition = -1 } = deadLetter.place ?? {};
      if (!isPlaceMeant({ topic, partition }, request)) continue;
      jsonLogger(instance.write, { consumer: instance.consumer, topic, partition }).warn(
        "a letter cannot be read",
        errorFacts(deadLetter),
      );
      unreadable.push(unread({ topic, partition }, deadLetter));
      continue;
    }
    const { key, position } = request;
    if (!isPlaceMeant(deadLetter, request) || (key !== undefined && deadLetter.key !== key)) continue;
    if (position !== undefined && !(await isAt(instance, deadLetter, request, signal))) continue;
    // Stacks of thousands of dead letters need not be held.
    meant.push({ ...deadLetter, error: { ...deadLetter.error, stack: "" } });
  }
  return { meant, unreadable };
}

function isPlaceMeant(
  deadLetter: { readonly topic: string; readonly partition: number },
  { topic, partition }: RedriveRequest,
): boolean {
  return (
    (topic === undefined || deadLetter.topic === topic) &&
    (partition === undefined || deadLetter.partition === partition)
  );
}

/** Returns whether a position is one of the dead letter's key: of the change that began it, or of one that is parked behind. */
async function isAt(
  { parking }: RedriveInstance,
  deadLetter: StoredDeadLetter,
  { position = "", discard }: RedriveRequest,
  signal: AbortSignal,
): Promise<boolean> {
  if (position < deadLetter.position) return false;
  if (position === deadLetter.position && !discard) return true;
  // What is to be given up must be there still.
  return parking.hasChange(deadLetter, position, signal);
}

function unread(
  { topic, partition }: { readonly topic: string; readonly partition: number },
  error: StateItemError,
): RedrivenLetter {
  const facts = { key: "", table: "", position: "", attempts: 0, error: error.name };
  return { topic, partition, ...facts, outcome: "failed", redriven: 0 };
}

/** Returns the dead letters that are open, without touching them. */
async function look(run: RedriveRun, deadLetters: readonly StoredDeadLetter[]): Promise<RedrivenLetter[]> {
  const found: RedrivenLetter[] = [];
  await runSideBySide(byPartition(deadLetters), SIDE_BY_SIDE, async (group) => {
    const [{ topic, partition }] = group as [StoredDeadLetter];
    const { consumer, leases, write } = run.instance;
    const fenced = await leases.look(topic, partition, run.deadline.end);
    const { held, hold } = fenced;
    let keys: readonly ParkedKey[];
    try {
      keys = keysOf(consumer, { topic, partition }, fenced).values();
    } catch (error) {
      jsonLogger(write, { consumer, topic, partition }).warn("a partition cannot be read", errorFacts(error));
      const facts = { outcome: "failed", redriven: 0, error: nameOf(error) } as const;
      found.push(...group.map((deadLetter) => ({ ...asRedriven(deadLetter), ...facts })));
      return;
    }
    for (const deadLetter of group) {
      const entry = keys.find(({ chain }) => chain === deadLetter.chain);
      const holdOf = heldBy(deadLetter.chain);
      if (holdOf !== undefined) {
        if (hold?.id === holdOf) found.push({ ...asRedriven(deadLetter), outcome: "open", redriven: 0 });
      } else if (entry) {
        const outcome = entry.kind === "overtaken" && held ? "busy" : "open";
        const failed = await failedPosition(run, deadLetter);
        found.push({ ...asRedriven(deadLetter), ...failed, outcome, redriven: 0, parked: entry.items });
      } else if (deadLetter.superseded)
        found.push({ ...asRedriven(deadLetter), outcome: "superseded", redriven: 0 });
    }
  });
  return found;
}

async function failedPosition(
  run: RedriveRun,
  deadLetter: StoredDeadLetter,
): Promise<{ failed?: PositionText }> {
  const failed = failedOf(deadLetter);
  if (failed === undefined) return {};
  if ("at" in failed) return { failed: failed.at };
  // The first behind it, if it can be read.
  for await (const { position } of run.instance.parking.changes(
    deadLetter,
    failed.behind,
    LAST,
    run.deadline.work,
  ))
    return { failed: position };
  return {};
}

async function redrive(run: RedriveRun, deadLetters: readonly StoredDeadLetter[]): Promise<RedrivenLetter[]> {
  const found: RedrivenLetter[] = [];
  await runSideBySide(byPartition(deadLetters), SIDE_BY_SIDE, async (group) => {
    // Once for a partition: what is busy then may be so for a minute, or for as long as a handler runs.
    let patient = true;
    for (const deadLetter of group) {
      const outcome = await redriveDeadLetter(run, deadLetter, patient);
      patient &&= outcome.kind !== "busy";
      if (outcome.kind === "gone") continue;
      const { kind, ...facts } = outcome;
      found.push({ ...asRedriven(deadLetter), outcome: kind, ...facts });
    }
    const [{ topic, partition }] = group as [StoredDeadLetter];
    // What stays does no harm; the next redrive finds it.
    await run.instance.leases.removeOrphans(topic, partition, run.deadline.work).catch(() => {});
  });
  return found;
}

/** Under a lease of its own, so that what must wait for it does so for one key only. */
async function redriveDeadLetter(
  run: RedriveRun,
  deadLetter: StoredDeadLetter,
  patient: boolean,
): Promise<ChainOutcome> {
  const { instance, deadline } = run;
  const { topic, partition, position } = deadLetter;
  const logger = jsonLogger(instance.write, { consumer: instance.consumer, topic, partition, position });
  if (run.left <= 0 || deadline.work.aborted) return { kind: "open", redriven: 0 };
  const held = heldBy(deadLetter.chain);
  if (held !== undefined) return redriveHold(run, deadLetter, held);
  let lease: RedriveLease | undefined;
  try {
    lease = await leaseOf(run, deadLetter, patient ? PATIENCE_MS : 0);
    if (!lease) return { kind: "busy", redriven: 0 };
    const outcome = await new ChainRedrive(run, deadLetter, lease).run();
    if (outcome.kind !== "gone") logger.info("redrive of a key ended", { ...outcome });
    return outcome;
  } catch (error) {
    logger.warn("redrive of a key broke off", errorFacts(error));
    if (!(error instanceof StateItemError)) return { kind: "open", redriven: 0 };
    return { kind: "failed", redriven: 0, attempts: deadLetter.attempts, error: error.name };
  } finally {
    if (lease) await giveBack(run, deadLetter, lease);
  }
}

/** Waits a little for another redrive, and for a handler that still runs. */
async function leaseOf(
  { instance, deadline, owner }: RedriveRun,
  deadLetter: StoredDeadLetter,
  patienceMs: number,
): Promise<RedriveLease | undefined> {
  const { topic, partition } = deadLetter;
  const patience = AbortSignal.any([deadline.work, AbortSignal.timeout(patienceMs)]);
  // A call of an earlier redrive, or of an invocation, may still act in this process.
  if (!(await instance.running.haveEnded(deadLetter, undefined, patience))) return undefined;
  for (;;) {
    const lease = await instance.leases.take(topic, partition, owner, deadline.end);
    if (lease || patience.aborted) return lease;
    await sleep(POLL_MS, undefined, { signal: patience }).catch(() => {});
  }
}

/** One that is not given back ends by itself: so it must where a handler still runs, unless that ends before. */
async function giveBack(
  { instance }: RedriveRun,
  deadLetter: StoredDeadLetter,
  lease: RedriveLease,
): Promise<void> {
  const { running } = instance;
  if (!running.has(deadLetter)) return lease.release().catch(() => {});
  lease.abandon();
  const ended = running.haveEnded(deadLetter, undefined, new AbortController().signal);
  void ended.then(() => lease.release(AbortSignal.timeout(RELEASE_MS))).catch(() => {});
}

/**
 * By partition: what was not tried for longest comes first, what ended the process last time at the end, and behind all
 * what a partition holds: it may wait for room that the others make.
 */
function byPartition(deadLetters: readonly StoredDeadLetter[]): StoredDeadLetter[][] {
  const rank = (deadLetter: StoredDeadLetter) =>
    `${heldBy(deadLetter.chain) === undefined ? 0 : 1}${deadLetter.trying ? 1 : 0}${deadLetter.lastFailedAt}${deadLetter.position}`;
  const sorted = deadLetters.toSorted((a, b) => (rank(a) < rank(b) ? -1 : 1));
  return [...Map.groupBy(sorted, ({ topic, partition }) => `${topic}/${partition}`).values()];
}

function asRedriven({ topic, partition, key, table, position, attempts, error }: StoredDeadLetter) {
  return { topic, partition, key, table, position, attempts, error: error.name };
}
