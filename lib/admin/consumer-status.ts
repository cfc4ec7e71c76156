import { isPosition, type PositionText } from "../change/position.ts";
import { type PartitionName, refuseItem, StateItemError } from "../consume/consume-errors.ts";
import { type ConsumerPlace, ConsumerTable } from "../consume/fence/consumer-table.ts";
import { GROUP_SIZE, groupOf, readPartition, type StoredPartition } from "../consume/fence/fence-item.ts";
import { heldBy } from "../consume/hold/hold.ts";
import type { PartitionHold } from "../consume/hold/hold-state.ts";
import { ParkedChains } from "../consume/hold/parked-chains.ts";
import { faultOfKeys, ParkedKeys } from "../consume/hold/parked-keys.ts";
import { ParkedLists } from "../consume/hold/parked-lists.ts";
import { isHealed, type MissingChanges, MissingTable } from "../consume/run/missing-changes.ts";
import { persistentTable } from "../state/persistent-table.ts";
import { fenceKey } from "../state/state-key.ts";

/** State of a consumer in one topic partition. */
export interface PartitionStatus extends PartitionName {
  /** The last change that took effect, or was passed; undefined: none yet. */
  readonly checkpoint: PositionText | undefined;
  /** Generation of the capture task that wrote it. */
  readonly writer: number;
  /** It waits for somebody: since when, for what (class of the error), and how many bytes of records it holds. */
  readonly hold: Pick<PartitionHold, "since" | "cause" | "bytes"> | undefined;
  /** The partition stands before these: they never came, and nobody has accepted that. */
  readonly gap: MissingChanges | undefined;
  /** Changes that took no effect and whose rows are not in place again; those of `gap` are not among them. */
  readonly unhealed: readonly MissingChanges[];
  /** Keys with open dead letters. */
  readonly deadLetters: number;
  /** Changes that wait behind a parked one of their key, itself included. */
  readonly parked: number;
  /** Its part of the fence cannot be read: the message names item and attributes. Its changes wait, and nothing else here may be built on. */
  readonly unread?: { readonly code: string; readonly message: string; readonly remedy: string };
}

/**
 * Reads the state of a consumer in each topic partition of which it has had anything, in their order; `unread` where that cannot be read.
 * @throws StateItemError for an item that names no partition; StateTableError, StateTableUnavailableError, FenceUnavailableError
 */
export async function consumerStatus(place: ConsumerPlace, signal: AbortSignal): Promise<PartitionStatus[]> {
  const table = new ConsumerTable(place);
  const missing = await new MissingTable(table).list(signal);
  const deadLetters = await openDeadLetters(new ParkedChains(table), signal);
  const partitions = await readPartitions(place, signal);
  // A gap may be noted of a partition nothing of which took effect.
  for (const { topic, partition } of missing) {
    if (partitions.some((known) => isAt(known, { topic, partition }))) continue;
    partitions.push(knownPartition(place, { topic, partition }, readPartition(undefined, partition)));
  }
  return partitions.sort(byPlace).map((known) => {
    const { topic, partition, position, writer, explained, lost, keys, hold, unread } = known;
    const own = missing.filter((entry) => isAt(entry, { topic, partition }) && !isHealed(entry));
    const passed = explained ?? position ?? "";
    // One that was found and came after all is none any more.
    const gap = own.find((entry) => !isPassedBy(entry) && entry.upTo > passed && !isSettled(entry, lost));
    const open = deadLetters.filter((deadLetter) => isAt(deadLetter, { topic, partition }));
    return {
      ...{ topic, partition, checkpoint: position, writer, gap },
      hold: hold && { since: hold.since, cause: hold.cause, bytes: hold.bytes },
      unhealed: own.filter((entry) => isPassedBy(entry) || entry.accepted).filter((entry) => entry !== gap),
      deadLetters: open.length,
      parked: keys.values().reduce((sum, { items }) => sum + items, 0),
      ...(unread && { unread }),
    };
  });
}

/** Returns whether a partition needs an operator. */
export function needsAttention({ hold, gap, unhealed, deadLetters, unread }: PartitionStatus): boolean {
  const isStopped = hold !== undefined || gap !== undefined || unread !== undefined;
  return isStopped || unhealed.length > 0 || deadLetters > 0;
}

/** The partition does not stand before them: it goes on, or was made to. */
function isPassedBy({ cause }: MissingChanges): boolean {
  return cause === "unreadable" || cause === "reset";
}

/** The change behind it has not come again since it was accepted. */
function isSettled({ cause, accepted }: MissingChanges, lost: KnownPartition["lost"]): boolean {
  return cause === "expired" && accepted !== undefined && lost?.state === "settled";
}

/** Returns the place of each open dead letter; one that cannot be read counts as open. */
async function openDeadLetters(parking: ParkedChains, signal: AbortSignal): Promise<PartitionName[]> {
  const found: PartitionName[] = [];
  for await (const deadLetter of parking.deadLetters(signal)) {
    const isUnread = deadLetter instanceof StateItemError;
    if (isUnread && !deadLetter.place) throw deadLetter;
    const isClosed = !isUnread && (deadLetter.superseded || heldBy(deadLetter.chain) !== undefined);
    const place = isUnread ? deadLetter.place : isClosed ? undefined : deadLetter;
    if (place) found.push(place);
  }
  return found;
}

/** A partition as its fence item says. */
interface KnownPartition
  extends PartitionName,
    Pick<StoredPartition, "position" | "writer" | "explained" | "lost" | "hold"> {
  readonly keys: ParkedKeys;
  readonly unread: PartitionStatus["unread"];
}

/** `parked`: its list of keys, from wherever it stands. */
function knownPartition(
  { pipeline, consumer }: ConsumerPlace,
  { topic, partition }: PartitionName,
  stored: StoredPartition,
  parked = stored.parked,
): KnownPartition {
  const { position, writer, explained, lost, hold } = stored;
  const fault = stored.fault ?? faultOfKeys(parked, partition);
  const read = { position, writer, explained, lost, ...(hold && { hold }) };
  if (fault === undefined)
    return { topic, partition, ...read, keys: ParkedKeys.parse(parked), unread: undefined };
  const item = fenceKey({ pipeline, consumer }, topic, groupOf(partition)).sk;
  const { code, message, remedy } = new StateItemError(consumer, item, fault);
  return {
    ...{ topic, partition, ...read, keys: ParkedKeys.parse(undefined) },
    position: position !== undefined && isPosition(position) ? position : undefined,
    writer: Number.isSafeInteger(writer) ? writer : 0,
    unread: { code, message, remedy },
  };
}

/** Every partition that has a checkpoint, or of which it cannot be told. */
async function readPartitions(place: ConsumerPlace, signal: AbortSignal): Promise<KnownPartition[]> {
  const { pk } = fenceKey(place, "", 0);
  const lists = new ParkedLists(new ConsumerTable(place));
  const found: KnownPartition[] = [];
  for await (const item of persistentTable({ ...place, signal }, true).query({ pk, sk: "fence#" })) {
    const [, topic, group] = /^fence#(.*)#(\d+)$/.exec(item.sk?.S ?? "") ?? [];
    // Whose checkpoints it holds nobody can tell: to pass over it would be to say that nothing is wrong there.
    if (topic === undefined) throw refuseItem(item, "sk", place.consumer)("", "expected fence#topic#group");
    for (let i = 0; i < GROUP_SIZE; i++) {
      const partition = Number(group) * GROUP_SIZE + i;
      const stored = readPartition(item, partition);
      const at = { topic, partition };
      const parked = stored.fault ? undefined : await lists.read(at, stored.parked, signal);
      const known = knownPartition(place, at, stored, parked);
      if (known.position !== undefined || known.unread) found.push(known);
    }
  }
  return found;
}

function isAt(a: PartitionName, b: PartitionName): boolean {
  return a.topic === b.topic && a.partition === b.partition;
}

function byPlace(a: PartitionName, b: PartitionName): number {
  if (a.topic !== b.topic) return a.topic < b.topic ? -1 : 1;
  return a.partition - b.partition;
}
