import { setTimeout as delay } from "node:timers/promises";
import type pg from "pg";
import { parseLsn } from "../change/lsn.ts";
import { formatTable, parseTable, type TableName } from "../change/table-pattern.ts";
import type { Pipeline } from "../definition/definition.ts";
import { routeTables } from "../definition/route.ts";
import type { AsideRecord } from "../source/postgres/aside/aside-record.ts";
import type { BackfillRecord } from "../source/postgres/backfill/backfill-record.ts";
import type { LogPipeline } from "../source/postgres/definition.ts";
import { MAX_SLOTS } from "../source/postgres/definition.ts";
import type { HoldRecord } from "../source/postgres/hold/hold-record.ts";
import { withConnection } from "../source/postgres/link/connection.ts";
import { makeSlot } from "../source/postgres/postgres-source.ts";
import { type Siblings, slotNames, slotNumbers, wantedSlot } from "../source/postgres/slots/assignment.ts";
import { awaitSlots, moveTopic } from "../source/postgres/slots/move.ts";
import { readShare, type SlotShare, slotOfTable, type TopicShare } from "../source/postgres/slots/share.ts";
import { checkSlotEpoch, isReceived } from "../source/postgres/slots/slot-count.ts";
import {
  FirstSlotMissingError,
  SlotsReducedError,
  TopicTakenError,
} from "../source/postgres/slots/slots-errors.ts";
import { type Arriving, type CaptureRecord, readCaptureRecord } from "../state/capture-record.ts";
import type { CaptureState } from "../state/capture-state.ts";
import { DEFAULT_LEASE_MS } from "../state/lease.ts";
import type { CaptureOptions } from "./capture-options.ts";
import { dropRetired, retireSlots } from "./retire-slots.ts";

/*
 * Before it streams, the task of one of several slots agrees with the first slot's task on how many there are,
 * makes its own slot, takes over the topics that should be its own, and waits until their old slots have come as far.
 */

/** The part of a pipeline that a capture task streams: all of it, or that of one of its slots. */
export interface Part {
  readonly pipeline: Pipeline;
  readonly tables: readonly TableName[];
  /** All that the pipeline captures, over all its slots. */
  readonly all: readonly TableName[];
  /** Set where a log is read. */
  readonly siblings?: Siblings;
  /** Of one of several slots: limits the record of backfills to its own tables. */
  readonly ownBackfills?: (record: BackfillRecord) => BackfillRecord;
  /** The same for the record of held topics. */
  readonly ownHolds?: (record: HoldRecord) => HoldRecord;
  /** The same for the record of changes that were put aside. */
  readonly ownAsides?: (record: AsideRecord) => AsideRecord;
}

/** Time that the first slot's task is waited for: a deploy starts them in any order. */
const FIRST_SLOT_DEADLINE_MS = 600_000;
const POLL_MS = 500;
/** An attempt to move a table must end before another task could take our lease over. */
const HELD_SHARE = 3;

/** The siblings of a slot that stands alone: one that comes later takes tables, and they are not taken back. */
export function soleSlot(definition: LogPipeline): Siblings {
  return {
    epoch: undefined,
    publications: otherPublications(definition, 1),
    isOwn: () => true,
    isForeign: () => false,
  };
}

/** Publications of the pipeline's other slots, those it does not have included. */
function otherPublications({ source }: LogPipeline, slot: number): readonly string[] {
  const numbers = Array.from({ length: MAX_SLOTS }, (_, i) => i + 1);
  return numbers.filter((number) => number !== slot).map((number) => slotNames(source, number).publication);
}

/**
 * Agrees on the number of slots, under the lease of ours. Gives the epoch that a further slot joins.
 * @throws SlotsReducedError, FirstSlotMissingError, SlotEpochError
 */
export async function agreeOnSlots(
  options: CaptureOptions,
  definition: LogPipeline,
  slot: number,
  state: CaptureState,
  signal: AbortSignal,
): Promise<number | undefined> {
  const { pipeline, log } = options;
  const wanted = definition.source.slots;
  const read = recordsBySlot(options, signal);
  if (slot === 1) {
    const { slots, retired } = await read(1);
    if (retired.length > 0) await finishRetiring(options, state, signal);
    if (slots > wanted)
      await retireSlots(options, definition, slots, (count) => state.writeSlots(count), signal);
    if (slots < wanted) await state.writeSlots(wanted);
    return undefined;
  }
  const deadline = performance.now() + FIRST_SLOT_DEADLINE_MS;
  for (let told = false; ; told = true) {
    const first = await read(1);
    if (first.slots === wanted && first.slot) {
      checkSlotEpoch((await read(slot)).slot, first.slot);
      return first.slot.epoch;
    }
    const missing =
      first.slots === wanted ? "has made no slot yet" : `knows of ${first.slots} slots, not of ${wanted}`;
    if (performance.now() >= deadline) {
      if (first.slots > wanted) throw new SlotsReducedError(pipeline.name, first.slots, wanted);
      throw new FirstSlotMissingError({
        message: `the first slot's capture task of "${pipeline.name}" ${missing}`,
        remedy: "Look at its log; this task starts again and waits on.",
      });
    }
    if (!told) log.info(`waiting: the first slot's capture task ${missing}`, { waitsFor: "the first slot" });
    await delay(POLL_MS, undefined, { signal });
  }
}

/** Drops what `tributary epoch new` had retired when it was killed. */
async function finishRetiring(
  { connection, dynamodb, stateTable, pipeline, log }: CaptureOptions,
  state: CaptureState,
  signal: AbortSignal,
): Promise<void> {
  await withConnection(connection, { signal }, async (client) => {
    await dropRetired(client, { dynamodb, table: stateTable, pipeline: pipeline.name, signal }, state, log);
  });
}

/**
 * Makes the slot, and takes over what should be its own. Undefined: topics have come, and the lease is to be taken anew
 * before they are read, since what this task writes of them must carry a newer generation than all that their old slot
 * wrote (rule 8).
 *
 * @throws what the parts throw.
 */
export async function takePart(
  options: CaptureOptions,
  definition: LogPipeline,
  slot: number,
  epoch: number | undefined,
  state: CaptureState,
  signal: AbortSignal,
): Promise<Part | undefined> {
  const { connection, log } = options;
  return await withConnection(connection, { signal }, async (client) => {
    const since = await writtenSoFar(client);
    const share = (await readShare(client, definition, slot)) as SlotShare;
    const read = recordsBySlot(options, signal);
    const known = await read(slot);
    // What was noted and did not come is not waited for.
    const noted = Object.entries(known.arriving).filter(([table]) => share.isOwn(parseTable(table)));
    const incoming = await complete(share, read, log);
    const topicOf = routeTables(definition);
    const arrived = noted.map(([table]) => topicOf(parseTable(table)).topic.name);
    const topics = await topicsOf(share, slot, definition, [...known.topics, ...arrived], read);
    const siblings: Siblings = {
      epoch,
      publications: otherPublications(definition, slot),
      isOwn: share.isOwn,
      isForeign: (topic, commitLsn) =>
        !topics.now.has(topic) &&
        (commitLsn >= since || (topics.others.has(topic) && !topics.written.has(topic))),
    };
    if (incoming.length === 0 && noted.length === 0) {
      await state.writeTopics([...topics.written]);
      return {
        pipeline: share.pipeline,
        tables: share.own,
        all: share.all,
        siblings,
        ownBackfills: (record) => ownBackfills(record, definition, slot, share, connection),
        ownHolds: (record) => ownHolds(record, slot, topics),
        ownAsides: (record) => ownAsides(record, slot, topics),
      };
    }
    // The slot before the tables: what is committed in between would be in none.
    await makeSlot({ connection, pipeline: share.pipeline, record: state, siblings, signal, log });
    const expected = { ...Object.fromEntries(noted), ...comesFrom(incoming) };
    await state.writeArriving(expected);
    for (const topic of incoming) {
      await moveTopic(client, topic, {
        pipeline: definition,
        to: slot,
        others: siblings.publications,
        permit: async (from, tables) => {
          const { arriving } = await read(from);
          await state.confirm();
          return !tables.some((table) => arriving[table] !== undefined);
        },
        heldMs: (options.leaseMs ?? DEFAULT_LEASE_MS) / HELD_SHARE,
        signal,
        log,
      });
    }
    await awaitSlots(client, {
      slots: [...new Set(Object.values(expected))],
      confirmed: async (number) => (await read(number)).slot?.confirmedLsn,
      signal,
      log,
    });
    await state.writeTopics([...topics.written, ...incoming.map(({ topic }) => topic)]);
    return undefined;
  });
}

/** Reads what stands of a slot, by its number. */
function recordsBySlot(
  { pipeline, dynamodb, stateTable }: CaptureOptions,
  signal: AbortSignal,
): (slot: number) => Promise<CaptureRecord> {
  return (slot) => readCaptureRecord({ dynamodb, table: stateTable, pipeline: pipeline.name, slot, signal });
}

/** The end of the log. */
async function writtenSoFar(client: pg.Client): Promise<bigint> {
  const { rows } = await client.query<{ lsn: string }>("SELECT pg_current_wal_insert_lsn()::text AS lsn");
  return parseLsn((rows[0] as { lsn: string }).lsn);
}

/**
 * Topics that a slot has `now`, those it has `written` (of which it may still have changes to give), and those of the
 * `others`. A table that was renamed brings its slot with it: where that makes a topic another slot's, which nothing
 * has handed over, what the two write has no order.
 * @throws TopicTakenError
 */
async function topicsOf(
  { topics }: SlotShare,
  slot: number,
  definition: LogPipeline,
  known: readonly string[],
  read: (slot: number) => Promise<CaptureRecord>,
) {
  const numbers = slotNumbers(definition).filter((number) => number !== slot);
  const records = new Map(
    await Promise.all(numbers.map(async (number) => [number, new Set((await read(number)).topics)] as const)),
  );
  const claimed = new Set([...records.values()].flatMap((names) => [...names]));
  const now = new Set([...topics].flatMap(([topic, owner]) => (owner === slot ? topic : [])));
  const taken = [...now].filter((topic) => claimed.has(topic) && !known.includes(topic));
  if (taken.length > 0) throw new TopicTakenError(taken, slotNames(definition.source, slot).slot);
  // One that has moved away is forgotten when its new slot has wholly received it.
  const kept = known.filter((topic) => !records.get(topics.get(topic) ?? slot)?.has(topic));
  const others = new Set([...claimed, ...[...topics.keys()].filter((topic) => !now.has(topic))]);
  return { now, written: new Set([...kept, ...now]), others };
}

/** Of the topics that should come, those that their slots have wholly received themselves; the others come another time. */
async function complete(
  { incoming }: SlotShare,
  read: (slot: number) => Promise<CaptureRecord>,
  log: CaptureOptions["log"],
): Promise<readonly TopicShare[]> {
  const found: TopicShare[] = [];
  for (const share of incoming) {
    const { arriving } = await read(share.owner as number);
    if (isReceived(share, arriving)) found.push(share);
    else {
      log.warn(`the topic "${share.topic}" is not moved here yet: slot ${share.owner} still receives it`, {
        remedy: "Nothing is wrong; a later start of this task moves it.",
      });
    }
  }
  return found;
}

function comesFrom(incoming: readonly TopicShare[]): Arriving {
  return Object.fromEntries(
    incoming.flatMap(({ tables, owner }) => tables.map((table) => [formatTable(table), owner as number])),
  );
}

/** The backfills of a slot's own tables; what is no table of any slot is refused by the one that would have it. */
function ownBackfills(
  record: BackfillRecord,
  definition: LogPipeline,
  slot: number,
  { own, all }: Pick<SlotShare, "own" | "all">,
  connection: CaptureOptions["connection"],
): BackfillRecord {
  const ours = new Set(own.map(formatTable));
  const known = new Set(all.map(formatTable));
  const isStillOurs = (table: string) =>
    withConnection(
      connection,
      {},
      async (client) => (await slotOfTable(client, definition, parseTable(table))) === slot,
    );
  const takes = (table: string) =>
    ours.has(table) || (!known.has(table) && wantedSlot(definition, parseTable(table)) === slot);
  return {
    ...record,
    list: async () => (await record.list()).filter(({ table }) => takes(table)),
    write: async (backfill, update) => {
      // The publication no longer holds a table that has just moved away: its new slot goes on with it.
      if (update.status === "refused" && ours.has(backfill.table) && !(await isStillOurs(backfill.table)))
        return false;
      return await record.write(backfill, update);
    },
  };
}

/** Topics as one of several slots sees them. */
interface TopicsOfSlot {
  readonly now: ReadonlySet<string>;
  readonly written: ReadonlySet<string>;
  readonly others: ReadonlySet<string>;
}

/**
 * The holds of a slot's own topics. One that has moved away stays held here until its new slot has wholly received it, and that
 * one releases it; what is no topic of any slot, since its tables are gone, is the first slot's.
 */
export function ownHolds(
  record: HoldRecord,
  slot: number,
  { now, written, others }: TopicsOfSlot,
): HoldRecord {
  const isOwn = ownTopics(slot, { written, others });
  return {
    ...record,
    list: async () => {
      const holds = (await record.list()).filter(({ topic }) => isOwn(topic));
      return holds.map((hold) => ({
        ...hold,
        released: hold.released && (now.has(hold.topic) || !others.has(hold.topic)),
      }));
    },
  };
}

/**
 * The changes that were put aside of the same topics: two slots may count to the same position. Those of a topic that has moved away
 * are put aside again here as long as they come, and stay on record: the new slot has their tables read again.
 */
export function ownAsides(record: AsideRecord, slot: number, topics: TopicsOfSlot): AsideRecord {
  const isOwn = ownTopics(slot, topics);
  const { now, others } = topics;
  const hasLeft = (topic: string) => !now.has(topic) && others.has(topic);
  return {
    ...record,
    list: async () => {
      const asides = (await record.list()).filter(({ topic }) => isOwn(topic));
      return asides.map((aside) => (hasLeft(aside.topic) ? { ...aside, reread: true } : aside));
    },
    write: (aside) => record.write(hasLeft(aside.topic) ? { ...aside, reread: false } : aside),
    remove: async (aside) => {
      if (!hasLeft(aside.topic)) await record.remove(aside);
    },
  };
}

function ownTopics(
  slot: number,
  { written, others }: Pick<TopicsOfSlot, "written" | "others">,
): (topic: string) => boolean {
  return (topic) => written.has(topic) || (slot === 1 && !others.has(topic));
}
