import * as z from "zod";
import { leavesByRoot } from "../source/postgres/contract/leaves.ts";
import { publicationTerms } from "../source/postgres/contract/terms.ts";
import { knownTables } from "../source/postgres/identity/known-tables.ts";
import type { NewEpoch, SlotState } from "../source/postgres/slot/slot-record.ts";
import type { ReadingState } from "../source/reading-record.ts";
import { type CapturePlace, number, readItem } from "./capture-item.ts";
import { type LongAttribute, readLong } from "./capture-parts.ts";
import type { StoredSettings } from "./settings.ts";
import { CaptureRecordBrokenError } from "./state-errors.ts";

/** The record of a pipeline in the state table, whoever holds the lease. */
export interface CaptureRecord {
  readonly slot: SlotState | undefined;
  /** Of a source that reads tables instead of the log. */
  readonly reading: ReadingState | undefined;
  readonly newEpoch: NewEpoch | undefined;
  /** Slots that the record has forgotten and the server may still have. */
  readonly retired: readonly RetiredSlot[];
  readonly settings: StoredSettings | undefined;
  /** Of the first slot only: how many there are. */
  readonly slots: number;
  /** Tables that move here, and the slot that has them or had them: nothing of them may be given yet. */
  readonly arriving: Arriving;
  /** Of one of several slots: the topics that it writes, and those it wrote that no other one has taken over. */
  readonly topics: readonly string[];
  /** Time at which a task last renewed its lease, in milliseconds since 1970 UTC by its own clock. */
  readonly beatAt: number | undefined;
}

/** The record of a pipeline that has never been started. */
export const EMPTY_CAPTURE_RECORD: CaptureRecord = {
  slot: undefined,
  reading: undefined,
  newEpoch: undefined,
  retired: [],
  settings: undefined,
  slots: 1,
  arriving: {},
  topics: [],
  beatAt: undefined,
};

/** A slot that is to be dropped, and its publication: noted until the server has dropped them. */
export interface RetiredSlot {
  readonly slot: string;
  readonly publication: string;
}

/** Tables as people write them, and the number of the slot they come from. */
export type Arriving = Readonly<Record<string, number>>;

/** Number of tries to read an item whose parts are being replaced. */
const TRIES = 5;

/** Reads without taking the lease. @throws StateTableError, StateTableUnavailableError, CaptureRecordBrokenError */
export async function readCaptureRecord(place: CapturePlace): Promise<CaptureRecord> {
  for (let tries = 1; ; tries++) {
    const item = await readItem(place);
    const part = <T>(attribute: string, parse: (value: unknown) => T): T | undefined => {
      const text = item?.[attribute]?.S;
      return text === undefined ? undefined : parse(JSON.parse(text));
    };
    const long = await longAttributes(place, item);
    if (long) {
      const slot = part("slot", slotState.parse);
      const terms = long.terms === undefined ? undefined : publicationTerms.parse(JSON.parse(long.terms));
      const leaves = long.leaves === undefined ? undefined : leavesByRoot.parse(JSON.parse(long.leaves));
      const tables = long.tables === undefined ? undefined : knownTables.parse(JSON.parse(long.tables));
      return {
        slot: slot && {
          ...slot,
          ...(terms && { terms }),
          ...(leaves && { leaves }),
          ...(tables && { tables }),
        },
        reading: part("reading", readingState.parse),
        newEpoch: part("epoch", newEpoch.parse),
        retired: part("retired", retired.parse) ?? [],
        settings: long.settings === undefined ? undefined : storedSettings.parse(JSON.parse(long.settings)),
        slots: number(item?.slots ?? { N: "1" }),
        arriving: arriving.parse(JSON.parse(long.arriving ?? "{}")),
        topics: topics.parse(JSON.parse(long.topics ?? "[]")),
        beatAt: item?.beatAt?.N === undefined ? undefined : Number(item.beatAt.N),
      };
    }
    if (tries >= TRIES) throw new CaptureRecordBrokenError(place.pipeline);
  }
}

/** Undefined: one of them was replaced while it was read. */
async function longAttributes(
  place: CapturePlace,
  item: Awaited<ReturnType<typeof readItem>>,
): Promise<Partial<Record<LongAttribute, string>> | undefined> {
  const texts: Partial<Record<LongAttribute, string>> = {};
  for (const attribute of ["settings", "arriving", "topics", "terms", "leaves", "tables"] as const) {
    const held = item?.[attribute]?.S;
    if (held === undefined) continue;
    const text = await readLong(place, attribute, held);
    if (text === undefined) return undefined;
    texts[attribute] = text;
  }
  return texts;
}

/** A state as the text of its attribute. */
export function bigintsAsText(state: SlotState | ReadingState | NewEpoch): string {
  return JSON.stringify(state, (_key, value: unknown) =>
    typeof value === "bigint" ? value.toString() : value,
  );
}

const lsn = z.string().regex(/^\d+$/).transform(BigInt);

const logPlace = z.object({
  lsn,
  commit: z.object({ xid: z.int(), timeMs: z.number() }).optional(),
  message: z.literal(true).optional(),
});

const slotState = z.object({
  epoch: z.int().positive(),
  slot: z.string(),
  publication: z.string(),
  publicationOid: z.int().optional(),
  termsSeen: z.object({ lsn, atMs: z.number() }).optional(),
  truncates: z.array(z.object({ root: z.int(), xid: z.int(), lsn })).optional(),
  database: z.string(),
  systemId: z.string(),
  timeline: z.int().positive(),
  confirmedLsn: lsn,
  recentCommits: z.array(
    z.object({ commitLsn: lsn, xid: z.int(), commitTime: z.string().transform(BigInt) }),
  ),
  sent: z
    .object({ places: z.array(logPlace), writer: z.int().optional(), sinceMs: z.number().optional() })
    .optional(),
});

const newEpoch = z.object({ epoch: z.int().positive(), endedAt: lsn.optional() });

const readingState = z.object({
  kind: z.string(),
  epoch: z.int().positive(),
  database: z.string(),
  confirmedLsn: lsn,
  place: z.unknown(),
});

const storedSettings = z.object({
  keyFormat: z.string(),
  source: z.string().optional(),
  publication: z.string().optional(),
  slot: z.string().optional(),
  tables: z.record(
    z.string(),
    z.object({ topic: z.string(), partitions: z.int(), key: z.array(z.string()).nullable() }),
  ),
});

const retired = z.array(z.object({ slot: z.string(), publication: z.string() }));
const arriving = z.record(z.string(), z.int());
const topics = z.array(z.string());
