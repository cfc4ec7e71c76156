import { randomBytes } from "node:crypto";
import { runSideBySide } from "./concurrency.ts";
import { errorFacts, jsonLogger } from "./context.ts";
import { Deadline } from "./deadline.ts";
import type { ConsumerInstance } from "./invocation.ts";
import { tellObserver } from "./observer.ts";
import { ParkedKeys } from "./parked-keys.ts";
import type { Letter } from "./parking-table.ts";
import { type ChainOutcome, ChainRedrive, type RedriveRun } from "./redrive-chain.ts";
import type { RedriveLease } from "./redrive-lease.ts";
import type { RedrivenLetter, RedriveReport, RedriveRequest } from "./redrive-request.ts";

/** Partitions that are worked on at the same time. */
const SIDE_BY_SIDE = 8;
/** Keys that a report names: a function's answer may have 6 MB. */
const REPORTED = 1_000;

/**
 * Brings parked and skipped changes to effect, key by key: each in its order, never over newer state. Twice is safe.
 * Invocations go on meanwhile.
 * @throws FenceUnavailableError when the state table cannot be read at all.
 */
export async function runRedrive(
  instance: ConsumerInstance,
  request: RedriveRequest,
  remainingMs: number,
): Promise<RedriveReport> {
  const started = performance.now();
  const deadline = new Deadline(remainingMs);
  const run: RedriveRun = {
    instance,
    deadline,
    owner: `redrive-${randomBytes(12).toString("base64url")}`,
    discard: request.discard ?? false,
    left: request.limit ?? Number.POSITIVE_INFINITY,
    redriven: 0,
    discarded: 0,
  };
  try {
    const selected: Letter[] = [];
    for await (const letter of instance.parking.letters(deadline.work)) {
      // Stacks of thousands of letters need not be held.
      if (isMeant(letter, request)) selected.push({ ...letter, error: { ...letter.error, stack: "" } });
    }
    const letters = request.dryRun ? await look(run, selected) : await redrive(run, selected);
    const count = (outcome: RedrivenLetter["outcome"]) =>
      letters.filter((letter) => letter.outcome === outcome).length;
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
        superseded: count("superseded"),
      },
      more: !request.dryRun && open > 0,
      durationMs: Math.round(performance.now() - started),
      letters: letters.slice(0, REPORTED),
    };
    await tellObserver(
      () => instance.observer.redrive?.(report),
      deadline.untilEndMs(),
      jsonLogger(instance.write, { consumer: instance.consumer }),
    );
    return report;
  } finally {
    deadline.clear();
  }
}

function isMeant(letter: Letter, { key, topic, partition, position }: RedriveRequest): boolean {
  return (
    (key === undefined || letter.key === key) &&
    (topic === undefined || letter.topic === topic) &&
    (partition === undefined || letter.partition === partition) &&
    (position === undefined || letter.position === position)
  );
}

/** What is open, without touching it. */
async function look(run: RedriveRun, letters: readonly Letter[]): Promise<RedrivenLetter[]> {
  const found: RedrivenLetter[] = [];
  await runSideBySide(byPartition(letters), SIDE_BY_SIDE, async (group) => {
    const [{ topic, partition }] = group as [Letter];
    const { parked } = await run.instance.leases.look(topic, partition, run.deadline.end);
    const keys = ParkedKeys.parse(parked).values();
    for (const letter of group) {
      const entry = keys.find(({ chain }) => chain === letter.chain);
      if (entry) {
        const outcome = entry.kind === "overtaken" ? "busy" : "open";
        found.push({ ...asRedriven(letter), outcome, redriven: 0, parked: entry.items });
      } else if (letter.superseded) found.push({ ...asRedriven(letter), outcome: "superseded", redriven: 0 });
    }
  });
  return found;
}

async function redrive(run: RedriveRun, letters: readonly Letter[]): Promise<RedrivenLetter[]> {
  const found: RedrivenLetter[] = [];
  await runSideBySide(byPartition(letters), SIDE_BY_SIDE, async (group) => {
    for (const letter of group) {
      const outcome = await redriveLetter(run, letter);
      if (outcome.kind === "gone") continue;
      const { kind, ...facts } = outcome;
      found.push({ ...asRedriven(letter), outcome: kind, ...facts });
    }
  });
  return found;
}

/** Under a lease of its own, so that what must wait for it does so for one key only. */
async function redriveLetter(run: RedriveRun, letter: Letter): Promise<ChainOutcome> {
  const { instance, deadline, owner } = run;
  const { topic, partition, position } = letter;
  const logger = jsonLogger(instance.write, { consumer: instance.consumer, topic, partition, position });
  if (run.left <= 0 || deadline.work.aborted) return { kind: "open", redriven: 0 };
  let lease: RedriveLease | undefined;
  try {
    lease = await instance.leases.take(topic, partition, owner, deadline.end);
    if (!lease) return { kind: "busy", redriven: 0 };
    const outcome = await new ChainRedrive(run, letter, lease).run();
    if (outcome.kind !== "gone") logger.info("redrive of a key ended", { ...outcome });
    return outcome;
  } catch (error) {
    logger.warn("redrive of a key broke off", errorFacts(error));
    return { kind: "open", redriven: 0 };
  } finally {
    // One that is not given back ends by itself: so it must where a handler still runs.
    if (instance.running.has(letter)) lease?.abandon();
    else await lease?.release().catch(() => {});
  }
}

/** By partition: what was not tried for longest comes first, what ended the process last time at the end. */
function byPartition(letters: readonly Letter[]): Letter[][] {
  const rank = (letter: Letter) => `${letter.trying ? 1 : 0}${letter.lastFailedAt}${letter.position}`;
  const sorted = letters.toSorted((a, b) => (rank(a) < rank(b) ? -1 : 1));
  return [...Map.groupBy(sorted, ({ topic, partition }) => `${topic}/${partition}`).values()];
}

function asRedriven({ topic, partition, key, table, position, attempts, error }: Letter) {
  return { topic, partition, key, table, position, attempts, error: error.name };
}
