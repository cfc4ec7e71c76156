import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { AttributeValue } from "@aws-sdk/client-dynamodb";
import { CaptureLeaseLostError } from "../source/capture-lease-lost.ts";
import { type CapturePlace, number, readItem, updateItem } from "./capture-item.ts";
import { DEFAULT_LEASE_MS, type Moment, moment } from "./lease.ts";
import { CaptureLeaseHeldError } from "./state-errors.ts";

/** The lease to take, and how long an owner may be silent before it is taken over. */
export interface CaptureLeaseOptions extends CapturePlace {
  /** A lease not renewed for this long is taken over. */
  readonly leaseMs?: number;
  /** Time to wait for another owner before giving up. */
  readonly waitMs?: number;
  /** The generation is at least this: for one who cannot trust what stands in the table. */
  readonly generationAtLeast?: number;
  /** `fields` say what is waited for, if anything is. */
  readonly log: (line: string, fields?: Record<string, unknown>) => void;
}

const DEFAULT_WAIT_MS = 180_000;
/** A wait is told when it begins, when the holder changes, and this often. */
const TELL_EVERY_MS = 10_000;

/** A lease that was taken. */
export interface TakenLease {
  readonly generation: number;
  /** Nobody else takes it over before a lease's time from here on (`Moment`). */
  readonly askedAt: Moment;
}

/**
 * Takes the capture lease, waiting for its owner to end or to fall silent, and gives the generation that it is held under.
 * Ownership compares no clocks: a newcomer takes over when the owner's beat stood still for `leaseMs` of the newcomer's own
 * time.
 * @throws CaptureLeaseHeldError when the owner is alive until the deadline; StateTableError, StateTableUnavailableError.
 */
export async function takeLease(options: CaptureLeaseOptions): Promise<TakenLease> {
  const leaseMs = options.leaseMs ?? DEFAULT_LEASE_MS;
  const waitMs = options.waitMs ?? DEFAULT_WAIT_MS;
  const owner = randomUUID();
  const started = performance.now();
  let seen: { generation: number; beat: number; since: number } | undefined;
  let told: { holder: string; at: number } | undefined;
  let tried: Moment | undefined;
  for (;;) {
    const askedAt = moment();
    const item = await readItem(options);
    const now = performance.now();
    const generation = number(item?.generation);
    const beat = number(item?.beat);
    const holder = item?.owner?.S;
    // Ours since an earlier try: when its answer was lost.
    if (holder === owner && tried)
      return { generation: await drawn(options, owner, generation), askedAt: tried };
    if (!seen || seen.generation !== generation || seen.beat !== beat)
      seen = { generation, beat, since: now };
    if (holder === undefined || now - seen.since >= leaseMs) {
      const next = Math.max(generation + 1, number(item?.newest) + 1, options.generationAtLeast ?? 0);
      tried ??= askedAt;
      const taken = await tryTake(options, owner, { generation, beat, newest: item?.newest }, next);
      if (taken) return { generation: await drawn(options, owner, next), askedAt };
      continue;
    }
    if (now - started >= waitMs) throw new CaptureLeaseHeldError(options.pipeline, holder, now - started);
    if (told?.holder !== holder || now - told.at >= TELL_EVERY_MS) {
      told = { holder, at: now };
      options.log(`waiting for the capture lease of "${options.pipeline}", held by ${holder}`, {
        waitsFor: "lease",
      });
    }
    await sleep(Math.min(1000, leaseMs / 4), undefined, { signal: options.signal });
  }
}

/**
 * A generation above all that were given before; undefined: a task holds the lease.
 * @throws StateTableError, StateTableUnavailableError
 */
export async function tryNextGeneration(place: CapturePlace): Promise<number | undefined> {
  const updated = await updateItem(place, {
    UpdateExpression: "ADD #generation :one",
    ConditionExpression: "attribute_not_exists(#owner)",
    ExpressionAttributeNames: { "#owner": "owner", "#generation": "generation" },
    ExpressionAttributeValues: { ":one": { N: "1" } },
    ReturnValues: "UPDATED_NEW",
  });
  return updated && number(updated.Attributes?.generation);
}

/**
 * The generation of one who has just taken a lease. One count for a pipeline stands in the first slot's item, beside that
 * slot's own: the first slot has counted it in (absent with one slot). Another one draws from it now, and not before it had
 * the lease: what the slots were given until then must be below its own, or what it writes of a table that came from
 * one of them would be dropped.
 * @throws CaptureLeaseLostError when another task has taken over meanwhile.
 */
async function drawn(options: CaptureLeaseOptions, owner: string, generation: number): Promise<number> {
  if ((options.slot ?? 1) === 1) return generation;
  const next = await draw(options, generation);
  const updated = await updateItem(options, {
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
  if (!updated) throw new CaptureLeaseLostError(options.pipeline, generation);
  return next;
}

/** Gives a number, at least `atLeast`, that is above all that were given before, and counts it in the first slot's item. */
async function draw(options: CaptureLeaseOptions, atLeast: number): Promise<number> {
  for (;;) {
    const first = await readItem({ ...options, slot: 1 });
    const next = Math.max(number(first?.newest) + 1, number(first?.generation) + 1, atLeast);
    const updated = await updateItem(
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
    if (updated) return next;
    // Someone was quicker, or it was ours and its answer was lost: a number that nobody has is no harm.
  }
}

async function tryTake(
  options: CaptureLeaseOptions,
  owner: string,
  seen: { generation: number; beat: number; newest: AttributeValue | undefined },
  next: number,
): Promise<boolean> {
  // What the others drew meanwhile is not passed over: only the first slot's item has this attribute.
  const newest = same("#newest", ":newest", seen.newest);
  const updated = await updateItem(options, {
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
  // Refused: someone else was faster, or our own first try succeeded and its answer was lost. The next read tells.
  return updated !== undefined;
}

/** The condition that an attribute is what was read. */
function same(name: string, value: string, seen: AttributeValue | undefined): string {
  return seen === undefined ? `attribute_not_exists(${name})` : `${name} = ${value}`;
}
