import { errorFacts, jsonLogger } from "../api/context.ts";
import type { ChainOutcome, RedriveRun } from "../dead-letter/redrive-chain.ts";
import { groupOf } from "../fence/fence-item.ts";
import { type LeaseState, PartitionLease } from "../fence/partition-lease.ts";
import { awaitReplay, ReplayLease } from "../fence/replay-lease.ts";
import { asInvocation } from "../run/consumer-instance.ts";
import { InvocationCounts } from "../run/observer.ts";
import { holdChain } from "./hold.ts";
import { HoldAtWorkError } from "./hold-errors.ts";
import { HoldReplay } from "./hold-replay.ts";
import type { StoredDeadLetter } from "./parked-change.ts";

/** After so long, whoever left a hold that the fence does not name has ended: an invocation has 15 minutes. */
const FORGOTTEN_MS = 24 * 3600 * 1000;
/**
 * Brings what a partition holds to effect, as an invocation does for which its next try has come: it takes the partition
 * from whoever has it, unless that one replays, too. Never throws.
 */
export async function redriveHold(
  run: RedriveRun,
  deadLetter: StoredDeadLetter,
  id: string,
): Promise<ChainOutcome> {
  const { instance, deadline, owner } = run;
  const { topic, partition } = deadLetter;
  const { fence, startPositions, holds, leases, write, consumer } = instance;
  const open: ChainOutcome = { kind: "open", redriven: 0 };
  // Nothing of it can be given up: what it waits for may be one change, what it holds is all that came since.
  if (run.left <= 0 || run.discard || deadline.work.aborted) return open;
  const counts = new InvocationCounts();
  const logger = jsonLogger(write, { consumer, topic, partition, hold: id });
  let right: PartitionLease | LeaseState | undefined;
  try {
    const { hold: seen, fault } = await leases.look(topic, partition, deadline.end);
    if (fault !== undefined)
      return { kind: "failed", redriven: 0, attempts: deadLetter.attempts, error: "StateItemError" };
    if (seen?.id !== id) return await forget(run, deadLetter, id);
    const item = leases.item(topic, partition, deadline.end);
    right = await awaitReplay(item, owner, deadline.work, (until) =>
      logger.info(
        "a redrive waits for another replay of a hold",
        errorFacts(new HoldAtWorkError(deadLetter, until)),
      ),
    );
    if (!(right instanceof PartitionLease)) {
      const error = new HoldAtWorkError(deadLetter, right.end);
      logger.warn("a redrive left a hold to another replay", errorFacts(error));
      return { kind: "busy", redriven: 0, error: error.name };
    }
    // Nobody else can end it now. Were it over, the partition would be taken from an invocation that applies what came since.
    if ((await leases.look(topic, partition, deadline.end)).hold?.id !== id)
      return await forget(run, deadLetter, id);
    const place = { topic, group: groupOf(partition) };
    const startPosition = await startPositions.of(topic, deadline.work);
    const taken = (await fence.take(place, [partition], owner, deadline.work)).get(partition);
    if (!taken) return open;
    const { stored, token, error } = taken;
    if (error !== undefined || stored.fault !== undefined) {
      await fence.giveBack(place, partition, token, deadline.end);
      if (error !== undefined) throw error;
      return { kind: "failed", redriven: 0, attempts: deadLetter.attempts, error: "StateItemError" };
    }
    const { hold, position = startPosition } = stored;
    const invocation = asInvocation(instance, { deadline, counts, token: owner });
    const careful = stored.token !== undefined;
    const lease = new ReplayLease(right, token);
    // Were it another's by now, that one would hand over to us what it did, and we would write the state of before over it.
    if (!(await lease.confirm())) {
      await fence.giveBack(place, partition, token, deadline.end);
      return { kind: "busy", redriven: 0, error: HoldAtWorkError.name };
    }
    const parts = { invocation, fence, startPositions, holds, place, token, startPosition, careful, lease };
    const now = { ...stored, partition, position };
    const budgetMs = deadline.remainingMs();
    const isStopped = () => run.left <= 0;
    const outcome = hold && (await new HoldReplay({ ...parts, budgetMs, isStopped }, topic, now, hold).run());
    const own = { progress: outcome?.progress ?? now, token };
    const { lost, overtaken } = await fence.close(place, [own], deadline.end);
    const isOurs = lost.length + overtaken.length === 0;
    if (!isOurs) await fence.handOver(place, own, lease.name, deadline.end);
    for (const chain of isOurs ? (outcome?.superseded ?? []) : [])
      await instance.parking.supersede(chain, deadline.end);
    const redriven = counts.applied;
    if (!isOurs) return { kind: "busy", redriven, error: HoldAtWorkError.name };
    if (!outcome?.progress.hold) return { kind: "done", redriven };
    const { tries, cause, nextTry } = outcome.progress.hold;
    return nextTry <= Date.now()
      ? { kind: "open", redriven }
      : { kind: "failed", redriven, attempts: tries, error: cause };
  } catch (error) {
    logger.warn("redrive of a hold broke off", errorFacts(error));
    return { ...open, redriven: counts.applied };
  } finally {
    run.redriven += counts.applied;
    run.left -= counts.applied;
    if (right instanceof PartitionLease) await right.release(deadline.end).catch(() => {});
  }
}

/** The fence does not name the hold: it is over, or is being begun right now. */
async function forget(
  { instance, deadline }: RedriveRun,
  deadLetter: StoredDeadLetter,
  id: string,
): Promise<ChainOutcome> {
  if (Date.now() - Date.parse(deadLetter.firstFailedAt) > FORGOTTEN_MS) {
    const { topic, partition } = deadLetter;
    await instance.holds.removeAll({ topic, partition, id }, deadline.end);
    await instance.parking.remove({ topic, partition, chain: holdChain(id) }, deadline.end);
  }
  return { kind: "gone", redriven: 0 };
}
