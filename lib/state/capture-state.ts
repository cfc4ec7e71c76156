import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import {
  type AttributeValue,
  ConditionalCheckFailedException,
  type DynamoDBClient,
  GetItemCommand,
  UpdateItemCommand,
  type UpdateItemCommandInput,
  type UpdateItemCommandOutput,
} from "@aws-sdk/client-dynamodb";
import * as z from "zod";
import type { NewEpoch, SlotRecord, SlotState } from "../source/postgres/slot-record.ts";
import type { ReadingRecord, ReadingState } from "../source/reading-record.ts";
import { CaptureLeaseHeldError, CaptureLeaseLostError } from "./errors.ts";
import { keyRecord } from "./known-keys.ts";
import { DEFAULT_LEASE_MS } from "./lease.ts";
import type { StoredSettings } from "./settings.ts";
import { captureKey } from "./table.ts";
import { persistently } from "./table-call.ts";

/** How the capture state reaches its item, and how long a silent owner keeps the lease. */
export interface CaptureStateOptions {
  readonly dynamodb: DynamoDBClient;
  readonly table: string;
  readonly pipeline: string;
  /** The number of the slot, where a pipeline has several; the first one's item knows what they share. Default 1. */
  readonly slot?: number | undefined;
  /** A lease not renewed for this long is taken over. */
  readonly leaseMs?: number;
  /** How long to wait for another owner before giving up. */
  readonly waitMs?: number;
  /** The generation is at least this: for one who cannot trust what stands in the table. */
  readonly generationAtLeast?: number;
  readonly signal: AbortSignal;
  readonly log: (line: string) => void;
}

const DEFAULT_WAIT_MS = 180_000;
/** A wait is told when it begins, when the holder changes, and this often. */
const TELL_EVERY_MS = 10_000;

/** What stands in the table of a pipeline, whoever holds the lease. */
export interface CaptureRecord {
  readonly slot: SlotState | undefined;
  /** Of a source that reads tables instead of the log. */
  readonly reading: ReadingState | undefined;
  readonly newEpoch: NewEpoch | undefined;
  readonly settings: StoredSettings | undefined;
  /** Of the first slot only: how many there are. */
  readonly slots: number;
  /** Tables that move here, and the slot that has them or had them: nothing of them may be given yet. */
  readonly arriving: Arriving;
  /** Of one of several slots: the topics that it writes, and those it wrote that no other one has taken over. */
  readonly topics: readonly string[];
}

/** Tables as people write them, and the number of the slot they come from. */
export type Arriving = Readonly<Record<string, number>>;

type TableOptions = Pick<CaptureStateOptions, "dynamodb" | "table" | "pipeline" | "slot" | "signal">;

/** Reads without taking the lease. @throws StateTableError, StateTableUnavailableError */
export async function readCaptureRecord(options: TableOptions): Promise<CaptureRecord> {
  const item = await readItem(options);
  const part = <T>(attribute: string, parse: (value: unknown) => T): T | undefined => {
    const text = item?.[attribute]?.S;
    return text === undefined ? undefined : parse(JSON.parse(text));
  };
  return {
    slot: part("slot", slotState.parse),
    reading: part("reading", readingState.parse),
    newEpoch: part("epoch", newEpoch.parse),
    settings: part("settings", storedSettings.parse),
    slots: number(item?.slots ?? { N: "1" }),
    arriving: part("arriving", arriving.parse) ?? {},
    topics: part("topics", topics.parse) ?? [],
  };
}

/**
 * The capture task's place in the state table, held under a lease: the generation that all its records carry, the
 * slot state, the stored settings. Ownership compares no clocks: a newcomer takes over when the owner's beat stood
 * still for `leaseMs` of the newcomer's own time.
 */
export class CaptureState implements SlotRecord {
  /**
   * Greater than all that were given before, to whichever slot of the pipeline; records of an older one are dropped by
   * consumers (rule 8), and a table may come from another slot.
   */
  readonly generation: number;
  /** Aborts, with the error as its reason, when another task has taken over. */
  readonly lost: AbortSignal;
  readonly #options: CaptureStateOptions;
  readonly #loss = new AbortController();
  #renewal: NodeJS.Timeout | undefined;

  private constructor(options: CaptureStateOptions, generation: number) {
    this.#options = options;
    this.generation = generation;
    this.lost = this.#loss.signal;
    this.#renewal = setInterval(() => void this.#renew(), (options.leaseMs ?? DEFAULT_LEASE_MS) / 3);
  }

  /**
   * Takes the lease, waiting for its owner to end or to fall silent.
   * @throws CaptureLeaseHeldError when the owner is alive until the deadline; StateTableError,
   * StateTableUnavailableError.
   */
  static async take(options: CaptureStateOptions): Promise<CaptureState> {
    const leaseMs = options.leaseMs ?? DEFAULT_LEASE_MS;
    const waitMs = options.waitMs ?? DEFAULT_WAIT_MS;
    const owner = randomUUID();
    const started = performance.now();
    let seen: { generation: number; beat: number; since: number } | undefined;
    let told: { holder: string; at: number } | undefined;
    for (;;) {
      const item = await readItem(options);
      const now = performance.now();
      const generation = number(item?.generation);
      const beat = number(item?.beat);
      const holder = item?.owner?.S;
      if (holder === owner) return new CaptureState(options, await drawn(options, owner, generation));
      if (!seen || seen.generation !== generation || seen.beat !== beat)
        seen = { generation, beat, since: now };
      if (holder === undefined || now - seen.since >= leaseMs) {
        const next = Math.max(generation + 1, number(item?.newest) + 1, options.generationAtLeast ?? 0);
        const taken = await tryTake(options, owner, { generation, beat, newest: item?.newest }, next);
        if (taken) return new CaptureState(options, await drawn(options, owner, next));
        continue;
      }
      if (now - started >= waitMs) throw new CaptureLeaseHeldError(options.pipeline, holder, now - started);
      if (told?.holder !== holder || now - told.at >= TELL_EVERY_MS) {
        told = { holder, at: now };
        options.log(`waiting for the capture lease of "${options.pipeline}", held by ${holder}`);
      }
      await sleep(Math.min(1000, leaseMs / 4), undefined, { signal: options.signal });
    }
  }

  /**
   * A generation of its own for one of several writers that share the partitions of a pipeline (rule 28): greater than
   * all that were given before, to them or with the lease. Waits while a task holds the lease, and is alive.
   * @throws CaptureLeaseHeldError, StateTableError, StateTableUnavailableError
   */
  static async nextGeneration(options: CaptureStateOptions): Promise<number> {
    const next = await tryNext(options);
    if (next !== undefined) return next;
    const state = await CaptureState.take(options);
    await state.release();
    return state.generation;
  }

  /** The slot state as last written, or undefined before the first. */
  async read(): Promise<SlotState | undefined> {
    return (await readCaptureRecord(this.#options)).slot;
  }

  /** @throws CaptureLeaseLostError when another task has taken over. */
  async write(state: SlotState): Promise<void> {
    await this.#update("SET #slot = :slot", { "#slot": "slot" }, { ":slot": { S: bigintsAsText(state) } });
  }

  /** The same for a source that reads tables: its record, under the same lease. */
  get reading(): ReadingRecord {
    return {
      read: async () => (await readCaptureRecord(this.#options)).reading,
      newEpoch: () => this.newEpoch(),
      write: (state) =>
        this.#update(
          "SET #reading = :reading",
          { "#reading": "reading" },
          { ":reading": { S: bigintsAsText(state) } },
        ),
      keys: keyRecord({ ...this.#options, signal: this.lost }, this.generation),
    };
  }

  /** The epoch that the next first start begins, when `tributary epoch new` has set one. */
  async newEpoch(): Promise<NewEpoch | undefined> {
    return (await readCaptureRecord(this.#options)).newEpoch;
  }

  /**
   * Forgets the slot, or how far tables were read: the next start begins anew, in this epoch, with these settings and so
   * many slots.
   * @throws CaptureLeaseLostError when another task has taken over.
   */
  async beginEpoch(epoch: NewEpoch, settings: StoredSettings | undefined, slots = 1): Promise<void> {
    const parts = {
      epoch: { S: bigintsAsText(epoch) },
      ...(settings && { settings: { S: JSON.stringify(settings) } }),
      ...(slots > 1 && { slots: { N: String(slots) } }),
    };
    const gone = ["slot", "reading", "arriving", "topics", ...(slots > 1 ? [] : ["slots"])];
    const set = Object.keys(parts).map((name) => `#${name} = :${name}`);
    await this.#update(
      `SET ${set.join(", ")} REMOVE ${gone.map((name) => `#${name}`).join(", ")}`,
      Object.fromEntries([...Object.keys(parts), ...gone].map((name) => [`#${name}`, name])),
      Object.fromEntries(Object.entries(parts).map(([name, value]) => [`:${name}`, value])),
    );
  }

  /** The settings stored at first start, or undefined before it. */
  async readSettings(): Promise<StoredSettings | undefined> {
    return (await readCaptureRecord(this.#options)).settings;
  }

  /** @throws CaptureLeaseLostError when another task has taken over. */
  async writeSettings(settings: StoredSettings): Promise<void> {
    await this.#update(
      "SET #settings = :settings",
      { "#settings": "settings" },
      { ":settings": { S: JSON.stringify(settings) } },
    );
  }

  /** Looks whether the lease is still ours, and renews it. @throws CaptureLeaseLostError when another task has taken over. */
  async confirm(): Promise<void> {
    await this.#update("SET #beat = #beat + :one", { "#beat": "beat" }, { ":one": { N: "1" } });
  }

  /** Tells the tasks of the other slots how many there are (of the first slot). @throws CaptureLeaseLostError */
  async writeSlots(count: number): Promise<void> {
    await this.#update("SET #slots = :slots", { "#slots": "slots" }, { ":slots": { N: String(count) } });
  }

  /** Notes which tables come from where, before they do. @throws CaptureLeaseLostError */
  async writeArriving(tables: Arriving): Promise<void> {
    await this.#update(
      "SET #arriving = :arriving",
      { "#arriving": "arriving" },
      { ":arriving": { S: JSON.stringify(tables) } },
    );
  }

  /** Notes which topics this slot writes, before it does; what was to arrive has. @throws CaptureLeaseLostError */
  async writeTopics(names: readonly string[]): Promise<void> {
    await this.#update(
      "SET #topics = :topics REMOVE #arriving",
      { "#topics": "topics", "#arriving": "arriving" },
      { ":topics": { S: JSON.stringify(names) } },
    );
  }

  /** Forgets a further slot: a new epoch has begun. @throws CaptureLeaseLostError */
  async forgetSlot(): Promise<void> {
    await this.#update(
      "REMOVE #slot, #settings, #arriving, #topics",
      { "#slot": "slot", "#settings": "settings", "#arriving": "arriving", "#topics": "topics" },
      {},
    );
  }

  /** Gives the lease back, so that a successor takes over at once. */
  async release(): Promise<void> {
    clearInterval(this.#renewal);
    if (this.lost.aborted) return;
    await this.#update("REMOVE #owner", { "#owner": "owner" }, {});
  }

  async #renew(): Promise<void> {
    try {
      await this.confirm();
    } catch (error) {
      // An unreachable table is no loss of the lease: the slot's own lock and the generation still hold.
      if (!(error instanceof CaptureLeaseLostError)) {
        this.#options.log(`the capture lease could not be renewed: ${(error as Error).name}`);
      }
    }
  }

  async #update(
    expression: string,
    names: Record<string, string>,
    values: Record<string, AttributeValue>,
  ): Promise<void> {
    if (this.lost.aborted) throw this.lost.reason;
    try {
      await updateItem(this.#options, {
        UpdateExpression: expression,
        ConditionExpression: "#generation = :generation",
        ExpressionAttributeNames: { ...names, "#generation": "generation" },
        ExpressionAttributeValues: { ...values, ":generation": { N: String(this.generation) } },
      });
    } catch (error) {
      if (!(error instanceof ConditionalCheckFailedException)) throw error;
      clearInterval(this.#renewal);
      const loss = new CaptureLeaseLostError(this.#options.pipeline, this.generation);
      this.#loss.abort(loss);
      throw loss;
    }
  }
}

/**
 * The generation of one who has just taken a lease. One count for a pipeline stands in the first slot's item, beside that
 * slot's own: the first slot has counted it in (absent with one slot). Another one draws from it now, and not before it had
 * the lease: what the slots were given until then must be below its own, or what it writes of a table that came from
 * one of them would be dropped.
 * @throws CaptureLeaseLostError when another task has taken over meanwhile.
 */
async function drawn(options: CaptureStateOptions, owner: string, generation: number): Promise<number> {
  if ((options.slot ?? 1) === 1) return generation;
  const next = await draw(options, generation);
  try {
    await updateItem(options, {
      UpdateExpression: "SET #generation = :next",
      // Ours already, where an answer was lost.
      ConditionExpression: "#owner = :owner AND #generation IN (:generation, :next)",
      ExpressionAttributeNames: { "#owner": "owner", "#generation": "generation" },
      ExpressionAttributeValues: {
        ":owner": { S: owner },
        ":generation": { N: String(generation) },
        ":next": { N: String(next) },
      },
    });
  } catch (error) {
    if (error instanceof ConditionalCheckFailedException)
      throw new CaptureLeaseLostError(options.pipeline, generation);
    throw error;
  }
  return next;
}

/** Gives a number, at least `atLeast`, that is above all that were given before, and counts it in the first slot's item. */
async function draw(options: CaptureStateOptions, atLeast: number): Promise<number> {
  for (;;) {
    const first = await readItem({ ...options, slot: 1 });
    const next = Math.max(number(first?.newest) + 1, number(first?.generation) + 1, atLeast);
    try {
      await updateItem(
        { ...options, slot: 1 },
        {
          UpdateExpression: "SET #newest = :next",
          ConditionExpression: `${same("#newest", ":newest", first?.newest)} AND ${same("#generation", ":generation", first?.generation)}`,
          ExpressionAttributeNames: { "#newest": "newest", "#generation": "generation" },
          ExpressionAttributeValues: {
            ":next": { N: String(next) },
            ...(first?.newest ? { ":newest": first.newest } : {}),
            ...(first?.generation ? { ":generation": first.generation } : {}),
          },
        },
      );
      return next;
    } catch (error) {
      // Someone was quicker, or it was ours and its answer was lost: a number that nobody has is no harm.
      if (!(error instanceof ConditionalCheckFailedException)) throw error;
    }
  }
}

/** Updates the item of a slot. @throws ConditionalCheckFailedException, StateTableError, StateTableUnavailableError */
function updateItem(
  options: TableOptions,
  update: Omit<UpdateItemCommandInput, "TableName" | "Key">,
): Promise<UpdateItemCommandOutput> {
  const input = { TableName: options.table, Key: itemKey(options), ...update };
  return persistently(options, () => options.dynamodb.send(new UpdateItemCommand(input)));
}

/** The condition that an attribute is what was read. */
function same(name: string, value: string, seen: AttributeValue | undefined): string {
  return seen === undefined ? `attribute_not_exists(${name})` : `${name} = ${value}`;
}

async function tryTake(
  options: CaptureStateOptions,
  owner: string,
  seen: { generation: number; beat: number; newest: AttributeValue | undefined },
  next: number,
): Promise<boolean> {
  // What the others drew meanwhile is not passed over: only the first slot's item has this attribute.
  const newest = same("#newest", ":newest", seen.newest);
  try {
    await updateItem(options, {
      UpdateExpression: "SET #owner = :owner, #generation = :next, #beat = :zero",
      ConditionExpression: `(attribute_not_exists(#generation) OR (#generation = :seen AND (attribute_not_exists(#owner) OR #beat = :beat))) AND ${newest}`,
      ExpressionAttributeNames: {
        "#owner": "owner",
        "#generation": "generation",
        "#beat": "beat",
        "#newest": "newest",
      },
      ExpressionAttributeValues: {
        ":owner": { S: owner },
        ":next": { N: String(next) },
        ":seen": { N: String(seen.generation) },
        ":beat": { N: String(seen.beat) },
        ":zero": { N: "0" },
        ...(seen.newest ? { ":newest": seen.newest } : {}),
      },
    });
    return true;
  } catch (error) {
    // Someone else was faster, or our own first try succeeded and its answer was lost: the next read tells.
    if (error instanceof ConditionalCheckFailedException) return false;
    throw error;
  }
}

async function tryNext(options: TableOptions): Promise<number | undefined> {
  try {
    const { Attributes } = await updateItem(options, {
      UpdateExpression: "ADD #generation :one",
      ConditionExpression: "attribute_not_exists(#owner)",
      ExpressionAttributeNames: { "#owner": "owner", "#generation": "generation" },
      ExpressionAttributeValues: { ":one": { N: "1" } },
      ReturnValues: "UPDATED_NEW",
    });
    return number(Attributes?.generation);
  } catch (error) {
    if (error instanceof ConditionalCheckFailedException) return undefined;
    throw error;
  }
}

async function readItem(options: TableOptions): Promise<Record<string, AttributeValue> | undefined> {
  const { Item } = await persistently(options, () =>
    options.dynamodb.send(
      new GetItemCommand({ TableName: options.table, Key: itemKey(options), ConsistentRead: true }),
    ),
  );
  return Item;
}

function itemKey({
  pipeline,
  slot,
}: Pick<TableOptions, "pipeline" | "slot">): Record<string, AttributeValue> {
  const { pk, sk } = captureKey(pipeline, slot);
  return { pk: { S: pk }, sk: { S: sk } };
}

function number(value: AttributeValue | undefined): number {
  return Number(value?.N ?? "0");
}

const lsn = z.string().regex(/^\d+$/).transform(BigInt);

const slotState = z.object({
  epoch: z.int().positive(),
  slot: z.string(),
  publication: z.string(),
  publicationOid: z.int().optional(),
  database: z.string(),
  systemId: z.string(),
  timeline: z.int().positive(),
  confirmedLsn: lsn,
  recentCommits: z.array(
    z.object({ commitLsn: lsn, xid: z.int(), commitTime: z.string().transform(BigInt) }),
  ),
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

const arriving = z.record(z.string(), z.int());
const topics = z.array(z.string());

function bigintsAsText(state: SlotState | ReadingState | NewEpoch): string {
  return JSON.stringify(state, (_key, value: unknown) =>
    typeof value === "bigint" ? value.toString() : value,
  );
}
