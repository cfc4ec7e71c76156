import type { ChangeEventJson } from "../../change/event.ts";
import type { ClaimRecord } from "../../change/record.ts";
import { HandlerDiedError } from "../api/handler-errors.ts";
import { PoisonWithoutKeyError } from "../hold/hold-errors.ts";
import type { BatchRecord } from "./batch-record.ts";
import { isClaimFault } from "./claim-reader.ts";
import { attemptsOf, type Item, now, type Partition, type Stop, stopAt } from "./partition.ts";

/** The event of a claim. What is wrong with its object alone counts as a failure of the change. */
export async function readClaimed(
  partition: Partition,
  record: BatchRecord,
  claimed: ClaimRecord,
): Promise<ChangeEventJson | Stop | "given up"> {
  const { configuration, deadline, oversize } = partition.invocation;
  const item = { record, index: 0, position: claimed.position };
  const known = partition.callsBefore(item.position);
  let { calls } = known;
  const since = known.since ?? now();
  const giveUp = (error: unknown) => withoutObject(partition, item, error, calls, since);
  if (partition.diedOften(calls)) return giveUp(new HandlerDiedError(calls));
  for (;;) {
    calls++;
    // Large as it is, it may be what ends the process.
    const lost = await partition.noteCall([item], calls, since);
    if (lost) return lost;
    try {
      return await oversize.read(claimed, deadline.work);
    } catch (error) {
      if (!isClaimFault(error)) return stopAt(record, error, attemptsOf([item], calls - 1, since));
      partition.log("a change could not be read", item, calls, error);
      if (calls >= configuration.attempts) return giveUp(error);
      if (!(await partition.wait(calls))) return stopAt(record, error, attemptsOf([item], calls, since));
    }
  }
}

/** A change whose object cannot be used is given up, as the policy says or because its loss was accepted. */
async function withoutObject(
  partition: Partition,
  item: Pick<Item, "record" | "index" | "position">,
  error: unknown,
  calls: number,
  since: string,
): Promise<Stop | "given up"> {
  const { position, explained = position } = partition.checkpoint;
  if (item.position <= explained) return "given up";
  const stop = await partition.poison(item, error, calls, since);
  if (!stop?.held && !(stop?.error instanceof PoisonWithoutKeyError)) return stop ?? "given up";
  await partition.noteMissing("object", item.record, position, item.position);
  return { ...stop, error, held: true };
}
