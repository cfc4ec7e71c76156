import type { KinesisStreamRecord } from "aws-lambda";
import fc from "fast-check";
import { PROBE } from "../../../lib/change/control-event.ts";
import { recordHead } from "../../../lib/change/record.ts";
import { at, type Change, kinesisRecord, packed, TOPIC } from "./records.ts";

/*
 * What the fence's model reads: the records of two partitions, each with writers of its own. A writer that begins in both
 * partitions is a capture task that starts; one that begins in one of them alone takes its topic over from another slot, while
 * the other partition goes on with an older generation: generations are counted over all slots.
 */

export const PARTITIONS = [0, 1];

/** What stands in a partition: a change, a row read by a backfill, or what only moves the fence: `control`, `another` consumer's. */
type Kind = "change" | "read" | "control" | "another";
const KINDS: readonly Kind[] = ["change", "change", "change", "read", "control", "another"];

export interface StreamRecord {
  readonly partition: number;
  readonly writer: number;
  readonly changes: readonly (Change & { ghost?: boolean; quiet: boolean })[];
  /** Its events cannot be read (rule 34). */
  readonly unreadable?: boolean;
}

/** Where a writer begins: at a transaction, and a little before it. */
interface Start {
  readonly at: number;
  readonly replays: number;
  readonly partitions: readonly number[];
  /** Generations back to the writer of an old record that comes late, behind this one's first. */
  readonly ghost: number;
}

interface Plan {
  readonly transactions: { partition: number; kind: Kind }[][];
  readonly newEpochAt: number;
  readonly starts: readonly Start[];
  readonly recordSize: number;
  /** Places of records that cannot be read. */
  readonly unreadable: readonly number[];
}

export const stream = fc
  .record({
    transactions: fc.array(
      fc.array(fc.record({ partition: fc.constantFrom(...PARTITIONS), kind: fc.constantFrom(...KINDS) }), {
        minLength: 1,
        maxLength: 3,
      }),
      { minLength: 2, maxLength: 8 },
    ),
    newEpochAt: fc.nat(10),
    starts: fc.array(
      fc.record({
        at: fc.nat(9),
        replays: fc.nat(3),
        partitions: fc.constantFrom(PARTITIONS, PARTITIONS, [0], [1]),
        ghost: fc.nat(2),
      }),
      { maxLength: 4 },
    ),
    recordSize: fc.integer({ min: 1, max: 3 }),
    unreadable: fc.oneof(fc.constant([]), fc.uniqueArray(fc.nat(9), { maxLength: 3 })),
  })
  .map(makeStream);

/** Transactions become records; where a writer starts, it repeats a little, and an old record comes late. */
function makeStream({ transactions, newEpochAt, starts, recordSize, unreadable }: Plan): StreamRecord[] {
  const all = transactions.flatMap((events, t) => {
    const late = t >= newEpochAt;
    // A new epoch starts at smaller LSNs.
    const commit = late ? 1 + t - newEpochAt : 100 + t;
    return events.map(({ partition, kind }, i) => ({
      ...shapeOf(kind),
      ...{ partition, t, at: commit, epoch: late ? 2 : 1, ordinal: 1 + 2 * i, row: { id: String(i % 2) } },
    }));
  });
  type Open = Omit<StreamRecord, "changes"> & { changes: StreamRecord["changes"][number][] };
  const records: Open[] = [];
  const writers = PARTITIONS.map(() => ({ writer: 1, last: null as string | null, begun: 0, ghost: 0 }));
  const write = (changes: typeof all) => {
    for (const change of changes) {
      const by = writers[change.partition] as (typeof writers)[number];
      const open = records.findLast(({ partition }) => partition === change.partition);
      const entry = { ...change, after: by.last };
      by.last = at(change.at, change);
      if (
        open?.writer === by.writer &&
        open.changes.length < recordSize &&
        !open.changes.some((c) => c.ghost)
      ) {
        open.changes.push(entry);
        continue;
      }
      records.push({ partition: change.partition, writer: by.writer, changes: [entry] });
      if (by.ghost === 0) continue;
      records.push(ghost(change.partition, by.ghost, entry));
      by.ghost = 0;
    }
  };
  let [written, generation] = [0, 1];
  for (const start of starts.toSorted((a, b) => a.at - b.at)) {
    const cut = all.findIndex(({ t }) => t >= start.at);
    if (cut < 0) break;
    write(all.slice(written, cut));
    written = cut;
    generation++;
    for (const partition of start.partitions) {
      const by = writers[partition] as (typeof writers)[number];
      // What was confirmed once, stays so.
      const from = Math.max(by.begun, cut - start.replays);
      const older = start.ghost === 0 ? 0 : Math.max(1, by.writer + 1 - start.ghost);
      writers[partition] = { writer: generation, last: null, begun: from, ghost: older };
      write(all.slice(from, cut).filter((change) => change.partition === partition));
    }
  }
  write(all.slice(written));
  return records.map((record, i) => ({ ...record, unreadable: unreadable.includes(i) }));
}

/** A record of an old writer, of which nothing more may count once the new one was seen: behind `before`, in the new one's first record. */
function ghost(partition: number, writer: number, before: StreamRecord["changes"][number]) {
  const change = {
    ...before,
    ordinal: (before.ordinal ?? 1) + 1,
    after: at(before.at, before),
    ...shapeOf("change"),
    row: { id: "ghost" },
    ghost: true,
  };
  return { partition, writer, changes: [change] };
}

function shapeOf(kind: Kind): Pick<Change, "op" | "message" | "source"> & { quiet: boolean } {
  switch (kind) {
    case "change":
      return { op: "c", quiet: false };
    case "read":
      return { op: "r", quiet: false };
    case "control":
      return { op: "m", message: { prefix: PROBE, content: "e30=" }, quiet: true };
    case "another":
      return { op: "r", source: { backfill: { run: 1, consumer: "another" } }, quiet: true };
  }
}

/** A record as Lambda hands it over. */
export function delivered(record: StreamRecord): KinesisStreamRecord {
  const { changes, partition, writer } = record;
  if (!record.unreadable) return packed(changes, record);
  const [first, last] = [changes[0] as Change, changes.at(-1) as Change];
  const after = typeof first.after === "number" ? at(first.after, first) : first.after;
  const head = recordHead(
    { topic: TOPIC, partition, writer },
    { first: at(first.at, first), last: at(last.at, last), after },
  );
  return kinesisRecord(`${head}--]}`, `${TOPIC}/${partition}`);
}

/** Leaves a record out, unless a writer's start stands in it or behind it: that hole cannot be seen. */
export function withHole(
  window: readonly StreamRecord[],
  hole: number | undefined,
): { window: readonly StreamRecord[]; whole: boolean } {
  const left = hole === undefined ? undefined : window[hole];
  if (!left || hole === undefined) return { window, whole: true };
  const fromThere = window.slice(hole).filter((record) => record.partition === left.partition);
  if (fromThere.some(({ changes }) => changes[0]?.after === null)) return { window, whole: true };
  return { window: window.filter((record) => record !== left), whole: false };
}

/** Positions that must take effect in a partition, in order. */
export function expected(records: readonly StreamRecord[], partition: number): string[] {
  const ids = records
    .filter((record) => record.partition === partition)
    .flatMap(({ changes }) =>
      changes.filter(({ ghost, quiet }) => !ghost && !quiet).map((change) => at(change.at, change)),
    );
  return [...new Set(ids)].sort();
}

/** Positions that must take effect in a partition and come from no writer of this generation or a newer one. */
export function olderOnly(records: readonly StreamRecord[], partition: number, writer: number): string[] {
  const newer = new Set(
    expected(
      records.filter((record) => record.writer >= writer),
      partition,
    ),
  );
  return expected(records, partition).filter((id) => !newer.has(id));
}

/** A record of one insert; its predecessor is at `[commit, ordinal]`, none for a writer's first. */
export function inserted(
  [partition, writer]: readonly [number, number],
  [commit, ordinal]: readonly [number, number],
  after: readonly [number, number] | null,
  more: { readonly ghost?: boolean } = {},
): StreamRecord {
  const id = (lsn: number, n: number) => at(lsn, { epoch: 2, ordinal: n } as Change);
  const row = { id: String(ordinal) };
  const place = { partition, t: commit - 1, at: commit, epoch: 2, ordinal, row };
  const change = { op: "c", quiet: false, ...place, after: after && id(...after), ...more };
  return { partition, writer, changes: [change as StreamRecord["changes"][number]] };
}
