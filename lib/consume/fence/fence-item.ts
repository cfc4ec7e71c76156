import { isPosition, type PositionText } from "../../change/position.ts";
import { tryFittingJson } from "../../change/shape.ts";
import { type ConditionalUpdate, type PlainValues, updateIf } from "../../state/item-update.ts";
import type { StateItem } from "../../state/state-table.ts";
import { formatHold, parseHold } from "../hold/hold.ts";
import type { PartitionHold } from "../hold/hold-state.ts";
import { type Attempts, type CheckpointValue, type LostRecords, storedAttempts } from "./checkpoint.ts";
import { type FenceToken, isHeld } from "./fence-token.ts";
import { asSeen, type LeaseState, REDRIVE, REPLAY, readLease } from "./partition-lease.ts";

/*
 * The fence's items: one for a consumer, topic and group of partitions. Attributes of partition p: `m<p>`, `w<p>` and
 * `a<p>` its checkpoint (position, writer and calls without an outcome), `e<p>` what lies behind it in the dead letters
 * (the position and `explained`: void beside another position), `j<p>` until when records may have expired unread (`!` before it
 * while that is open), `b` the same for all of an item that was begun later, `h<p>` the hold of a partition and its
 * checkpoint, beside which `m<p>` and `w<p>` are the intake's (hold.ts), `t<p>` who holds it (fence-token.ts), `k<p>` its keys with open
 * dead letters (parked-keys.ts), `r<p>` and `u<p>` a redrive at work and until when (redrive-lease.ts), `v<p>` and `x<p>` who
 * applies what it holds and until when (replay-lease.ts).
 * All of a batch's partitions of a group move in one update; a group is as large as DynamoDB's limits on
 * expressions allow (300 operators, 4 KB), which a test computes, since emulators do not enforce them.
 * https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html
 */

/** Partitions in an item. */
export const GROUP_SIZE = 32;

/** Partitions in one update of an item where some have attempts or keys with open dead letters: DynamoDB's limits again. */
export const PARTITIONS_WITH_MORE = 16;

/** The group that a partition belongs to. */
export function groupOf(partition: number): number {
  return Math.floor(partition / GROUP_SIZE);
}

/** In the list of parked keys of a held partition: libraries that know of no holds refuse it. */
const HELD = "h";

/** A partition as an item holds it. */
export interface StoredPartition {
  /** The attributes that are not as this library writes them: nothing may be built on the rest. */
  readonly fault?: string;
  readonly position: PositionText | undefined;
  readonly writer: number;
  /** Of whoever holds it; undefined where it was given back. */
  readonly token: string | undefined;
  readonly attempts: Attempts | undefined;
  readonly explained: PositionText | undefined;
  readonly lost: LostRecords | undefined;
  /** See `ParkedKeys`. */
  readonly parked: string | undefined;
  /** While it is held; its checkpoint is what is said above. */
  readonly hold?: PartitionHold;
  /** The lease of whoever applies what it holds, or died there. */
  readonly replay?: LeaseState;
}

/** The progress of a partition, to be written. */
export interface PartitionProgress extends CheckpointValue {
  readonly partition: number;
  /** See `ParkedKeys`; empty: none any more; undefined: none, and there was none. */
  readonly parked: string | undefined;
  /** While it is held; null: it is held no more. */
  readonly hold?: PartitionHold | null;
}

/** Progress in a partition that an invocation holds. */
export interface OwnProgress {
  readonly progress: PartitionProgress;
  readonly token: FenceToken;
}

/** Reads a partition's attributes. */
export function readPartition(item: StateItem | undefined, partition: number): StoredPartition {
  const attempts = item?.[`a${partition}`]?.S;
  const position = item?.[`m${partition}`]?.S;
  const explained = item?.[`e${partition}`]?.S;
  const stored = readToken(item, partition);
  const held = item?.[`h${partition}`]?.S;
  const writer = Number(item?.[`w${partition}`]?.N ?? "0");
  const calls = attempts === undefined ? undefined : tryFittingJson(storedAttempts, attempts);
  const hold = held === undefined ? undefined : parseHold(held, { position: position ?? "", writer });
  const faults = [
    ...(position === undefined || isPosition(position) ? [] : [`m${partition}: expected a position`]),
    ...(Number.isSafeInteger(writer) && writer >= 0 ? [] : [`w${partition}: expected a whole number`]),
    ...(attempts === undefined || calls ? [] : [`a${partition}: expected calls of a handler`]),
    ...(held === undefined || hold ? [] : [`h${partition}: expected a hold`]),
  ];
  const parked = item?.[`k${partition}`]?.S;
  const common = {
    ...(faults.length > 0 ? { fault: faults.join(", ") } : {}),
    token: isHeld(stored) ? stored : undefined,
    parked: held === undefined ? parked : withoutHeld(parked),
    lost: readLost(item, partition),
  };
  if (hold) {
    const replay = readLease(item, REPLAY, partition);
    const { checkpoint } = hold;
    const held = { ...common, ...checkpoint, explained: checkpoint.explained, hold: hold.hold };
    return replay.name === undefined ? held : { ...held, replay };
  }
  return {
    ...common,
    position,
    writer,
    attempts: calls,
    explained:
      position !== undefined && explained?.startsWith(position)
        ? explained.slice(position.length)
        : undefined,
  };
}

/** The list of parked keys as the fence has it. */
export function storedKeys(parked: string | undefined, isHeld: boolean): string | undefined {
  return isHeld ? [...(parked ? [parked] : []), HELD].join(",") : parked;
}

function withoutHeld(keys = ""): string | undefined {
  const left = keys.split(",").filter((entry) => entry !== HELD && entry !== "");
  return left.length === 0 ? undefined : left.join(",");
}

/** The token that stands there, held or given back. */
export function readToken(item: StateItem | undefined, partition: number): string | undefined {
  return item?.[`t${partition}`]?.S;
}

/**
 * Makes the invocation the owner of partitions; asked for all old attributes, it replaces the read. Refused as a whole
 * where one of them has a greater token. The same token passes: the answer to the first try may have been lost.
 *
 * A comparison with an attribute that does not exist is false, so its opposite is true. `inWords` asks for that attribute
 * instead, which emulators parse fifteen times as slowly: for a try after one that was refused, whatever the reason.
 */
export function takeUpdate(
  partitions: readonly number[],
  token: FenceToken,
  inWords: boolean,
): ConditionalUpdate {
  const isFree = (p: number) => (inWords ? `(attribute_not_exists(t${p}) OR t${p}<=:t)` : `NOT t${p}>:t`);
  const set = `SET ${partitions.map((p) => `t${p}=:t`).join(",")}`;
  return updateIf(set, partitions.map(isFree).join(" AND "), { t: token.held });
}

/** Writes checkpoints and gives the partitions back; refused as a whole where one of them is another's. */
export function closeUpdate(own: readonly OwnProgress[]): ConditionalUpdate {
  return progressUpdate(
    own.map(({ progress, token }) => ({ progress, held: token.held, next: token.givenBack })),
  );
}

/** Writes where a partition stands and keeps it, from now on under the token `next`. */
export function noteUpdate({ progress, token }: OwnProgress, next: string): ConditionalUpdate {
  return progressUpdate([{ progress, held: token.held, next }]);
}

/**
 * Writes where a partition stands before keys with open dead letters are overtaken, and keeps it; refused where a redrive has
 * begun there since `seen`. One whose time was over by then is shut out.
 */
export function overtakeUpdate(own: OwnProgress, next: string, seen: LeaseState): ConditionalUpdate {
  const { progress, token } = own;
  const { name, end } = REDRIVE;
  const unchanged = asSeen(seen, `${end}${progress.partition}`);
  return progressUpdate([{ progress, held: token.held, next }], {
    ...{ remove: [`${name}${progress.partition}`], conditions: [unchanged.condition] },
    values: unchanged.values,
  });
}

/** Gives a partition back without a word on where it stands. */
export function giveBackUpdate(partition: number, token: FenceToken): ConditionalUpdate {
  const t = `t${partition}`;
  return updateIf(`SET ${t}=:next`, `${t}=:held`, { next: token.givenBack, held: token.held });
}

/**
 * Writes where a replay came to, under the token of the one who has taken the partition meanwhile: nothing was written since,
 * and that one waits for the lease `replay`.
 */
export function handOverUpdate(
  { progress, token }: OwnProgress,
  taker: string,
  replay: string,
): ConditionalUpdate {
  const p = progress.partition;
  return progressUpdate([{ progress, held: taker, next: taker }], {
    conditions: [`h${p}=:was`, `k${p}=:keys`, `v${p}=:replay`],
    values: { was: token.hold ?? "", keys: storedKeys(token.list.stored, true) ?? "", replay },
  });
}

function progressUpdate(
  writes: readonly { readonly progress: PartitionProgress; readonly held: string; readonly next: string }[],
  more: Partial<Record<"remove" | "conditions", readonly string[]>> & { readonly values?: PlainValues } = {},
): ConditionalUpdate {
  const set: string[] = [];
  const remove: string[] = [];
  const conditions: string[] = [];
  const values: Record<string, PlainValues[string]> = { ...more.values };
  const write = (attribute: string, value: string) => {
    set.push(`${attribute}=:${attribute}`);
    values[attribute] = value;
  };
  // Most partitions share both tokens, and the writer.
  const shared = new Map<string | number, string>();
  const sharedName = (value: string | number) => {
    const name = shared.get(value) ?? `s${shared.size}`;
    shared.set(value, name);
    values[name] = value;
    return `:${name}`;
  };
  for (const { progress, held, next } of writes) {
    const { partition: p, hold, lost } = progress;
    const parked = storedKeys(progress.parked, !!hold) ?? (hold === null ? "" : undefined);
    const { position, writer } = hold ? hold.intake : progress;
    const { attempts, explained } = hold ? { attempts: undefined, explained: undefined } : progress;
    write(`m${p}`, position);
    set.push(`w${p}=${sharedName(writer)}`, `t${p}=${sharedName(next)}`);
    conditions.push(`t${p}=${sharedName(held)}`);
    if (attempts) write(`a${p}`, JSON.stringify(attempts));
    else remove.push(`a${p}`);
    if (lost !== undefined) write(`j${p}`, `${lost.state === "open" ? "!" : ""}${lost.until}`);
    if (explained !== undefined) write(`e${p}`, position + explained);
    if (hold) write(`h${p}`, formatHold(hold, progress));
    else if (hold === null) remove.push(`h${p}`);
    if (parked === "") remove.push(`k${p}`);
    else if (parked !== undefined) write(`k${p}`, parked);
  }
  remove.push(...(more.remove ?? []));
  conditions.push(...(more.conditions ?? []));
  return updateIf(
    `SET ${set.join(",")}${remove.length > 0 ? ` REMOVE ${remove.join(",")}` : ""}`,
    conditions.join(" AND "),
    values,
  );
}

/** Notes when the item was begun: nothing that expired before then is missing in it. */
export function beginUpdate(nowMs: number): ConditionalUpdate {
  return updateIf("SET b=:now", "attribute_not_exists(b)", { now: nowMs });
}

function readLost(item: StateItem | undefined, partition: number): LostRecords | undefined {
  const [, isOpen, until] = /^(!?)(\d+)$/.exec(item?.[`j${partition}`]?.S ?? "") ?? [];
  if (until === undefined) return bornAfter(item);
  return { until: Number(until), state: isOpen ? "open" : "settled" };
}

function bornAfter(item: StateItem | undefined): LostRecords | undefined {
  const born = item?.b?.N;
  return born === undefined ? undefined : { until: Number(born), state: "settled" };
}
