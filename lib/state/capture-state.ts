import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import {
  type AttributeValue,
  ConditionalCheckFailedException,
  type DynamoDBClient,
  GetItemCommand,
  ResourceNotFoundException,
  UpdateItemCommand,
} from "@aws-sdk/client-dynamodb";
import { z } from "zod";
import type { SlotRecord, SlotState } from "../source/postgres/slot-record.ts";
import { CaptureLeaseHeldError, CaptureLeaseLostError, StateTableError } from "./errors.ts";
import type { StoredSettings } from "./settings.ts";
import { captureKey } from "./table.ts";

/** How the capture state reaches its item, and how long a silent owner keeps the lease. */
export interface CaptureStateOptions {
  readonly dynamodb: DynamoDBClient;
  readonly table: string;
  readonly pipeline: string;
  /** A lease not renewed for this long is taken over. */
  readonly leaseMs?: number;
  /** How long to wait for another owner before giving up. */
  readonly waitMs?: number;
  readonly signal: AbortSignal;
  readonly log: (line: string) => void;
}

const DEFAULT_LEASE_MS = 15_000;
const DEFAULT_WAIT_MS = 180_000;
/** A call to DynamoDB is tried again for this long before the error is given on. */
const CALL_DEADLINE_MS = 60_000;

/**
 * The capture task's place in the state table, held under a lease: the generation that all its records carry, the
 * slot state, the stored settings. Ownership compares no clocks: a newcomer takes over when the owner's beat stood
 * still for `leaseMs` of the newcomer's own time.
 */
export class CaptureState implements SlotRecord {
  /** Grows by one with every take-over; records of an older generation are dropped by consumers (rule 8). */
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
   * @throws CaptureLeaseHeldError when the owner is alive until the deadline, StateTableError without a table.
   */
  static async take(options: CaptureStateOptions): Promise<CaptureState> {
    const leaseMs = options.leaseMs ?? DEFAULT_LEASE_MS;
    const waitMs = options.waitMs ?? DEFAULT_WAIT_MS;
    const owner = randomUUID();
    const started = performance.now();
    let seen: { generation: number; beat: number; since: number } | undefined;
    for (;;) {
      const item = await readItem(options);
      const now = performance.now();
      const generation = number(item?.generation);
      const beat = number(item?.beat);
      const holder = item?.owner?.S;
      if (holder === owner) return new CaptureState(options, generation);
      if (!seen || seen.generation !== generation || seen.beat !== beat)
        seen = { generation, beat, since: now };
      if (holder === undefined || now - seen.since >= leaseMs) {
        const taken = await tryTake(options, owner, { generation, beat });
        if (taken) return new CaptureState(options, generation + 1);
        continue;
      }
      if (now - started >= waitMs) throw new CaptureLeaseHeldError(options.pipeline, holder, now - started);
      options.log(`waiting for the capture lease of "${options.pipeline}", held by ${holder}`);
      await sleep(Math.min(1000, leaseMs / 4), undefined, { signal: options.signal });
    }
  }

  /** The slot state as last written, or undefined before the first. */
  async read(): Promise<SlotState | undefined> {
    const text = (await readItem(this.#options))?.slot?.S;
    return text === undefined ? undefined : parseSlotState(text);
  }

  /** @throws CaptureLeaseLostError when another task has taken over. */
  async write(state: SlotState): Promise<void> {
    await this.#update("SET #slot = :slot", { "#slot": "slot" }, { ":slot": { S: formatSlotState(state) } });
  }

  /** The settings stored at first start, or undefined before it. */
  async readSettings(): Promise<StoredSettings | undefined> {
    const text = (await readItem(this.#options))?.settings?.S;
    return text === undefined ? undefined : storedSettings.parse(JSON.parse(text));
  }

  /** @throws CaptureLeaseLostError when another task has taken over. */
  async writeSettings(settings: StoredSettings): Promise<void> {
    await this.#update(
      "SET #settings = :settings",
      { "#settings": "settings" },
      { ":settings": { S: JSON.stringify(settings) } },
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
      await this.#update("SET #beat = #beat + :one", { "#beat": "beat" }, { ":one": { N: "1" } });
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
      await persistently(this.#options, () =>
        this.#options.dynamodb.send(
          new UpdateItemCommand({
            TableName: this.#options.table,
            Key: itemKey(this.#options.pipeline),
            UpdateExpression: expression,
            ConditionExpression: "#generation = :generation",
            ExpressionAttributeNames: { ...names, "#generation": "generation" },
            ExpressionAttributeValues: { ...values, ":generation": { N: String(this.generation) } },
          }),
        ),
      );
    } catch (error) {
      if (!(error instanceof ConditionalCheckFailedException)) throw error;
      clearInterval(this.#renewal);
      const loss = new CaptureLeaseLostError(this.#options.pipeline, this.generation);
      this.#loss.abort(loss);
      throw loss;
    }
  }
}

async function tryTake(
  options: CaptureStateOptions,
  owner: string,
  seen: { generation: number; beat: number },
): Promise<boolean> {
  try {
    await persistently(options, () =>
      options.dynamodb.send(
        new UpdateItemCommand({
          TableName: options.table,
          Key: itemKey(options.pipeline),
          UpdateExpression: "SET #owner = :owner, #generation = :next, #beat = :zero",
          ConditionExpression:
            "attribute_not_exists(#generation) OR (#generation = :seen AND (attribute_not_exists(#owner) OR #beat = :beat))",
          ExpressionAttributeNames: { "#owner": "owner", "#generation": "generation", "#beat": "beat" },
          ExpressionAttributeValues: {
            ":owner": { S: owner },
            ":next": { N: String(seen.generation + 1) },
            ":seen": { N: String(seen.generation) },
            ":beat": { N: String(seen.beat) },
            ":zero": { N: "0" },
          },
        }),
      ),
    );
    return true;
  } catch (error) {
    // Someone else was faster, or our own first try succeeded and its answer was lost: the next read tells.
    if (error instanceof ConditionalCheckFailedException) return false;
    throw error;
  }
}

async function readItem(options: CaptureStateOptions): Promise<Record<string, AttributeValue> | undefined> {
  const { Item } = await persistently(options, () =>
    options.dynamodb.send(
      new GetItemCommand({ TableName: options.table, Key: itemKey(options.pipeline), ConsistentRead: true }),
    ),
  );
  return Item;
}

/** Tries a call again until it is answered; every call here may be repeated without harm. */
async function persistently<T>(options: CaptureStateOptions, call: () => Promise<T>): Promise<T> {
  const deadline = performance.now() + CALL_DEADLINE_MS;
  for (let attempt = 0; ; attempt++) {
    try {
      return await call();
    } catch (error) {
      if (error instanceof ConditionalCheckFailedException) throw error;
      if (error instanceof ResourceNotFoundException) {
        throw new StateTableError({
          message: `the state table "${options.table}" does not exist`,
          remedy: "Deploy the stack first, or set TRIBUTARY_STATE_TABLE to the table it made.",
          cause: error,
        });
      }
      if (performance.now() >= deadline || options.signal.aborted) throw error;
      await sleep(Math.random() * Math.min(5000, 50 * 2 ** attempt));
    }
  }
}

function itemKey(pipeline: string): Record<string, AttributeValue> {
  const { pk, sk } = captureKey(pipeline);
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
  database: z.string(),
  systemId: z.string(),
  timeline: z.int().positive(),
  confirmedLsn: lsn,
  recentCommits: z.array(
    z.object({ commitLsn: lsn, xid: z.int(), commitTime: z.string().transform(BigInt) }),
  ),
});

const storedSettings = z.object({
  keyFormat: z.string(),
  publication: z.string(),
  slot: z.string(),
  tables: z.record(
    z.string(),
    z.object({ topic: z.string(), partitions: z.int(), key: z.array(z.string()).nullable() }),
  ),
});

function parseSlotState(text: string): SlotState {
  return slotState.parse(JSON.parse(text));
}

function formatSlotState(state: SlotState): string {
  return JSON.stringify(state, (_key, value: unknown) =>
    typeof value === "bigint" ? value.toString() : value,
  );
}
