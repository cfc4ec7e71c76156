import type { SourceMessage } from "../../../change/change-stream.ts";
import { EncodedChange } from "../../../change/encoded-change.ts";
import { commitPrefix, formatOrdinal } from "../../../change/position.ts";
import { TributaryError } from "../../../change/tributary-error.ts";
import { PutAsideBefore } from "../aside/put-aside-before.ts";
import type { HeldMessage } from "../hold/held-change.ts";
import { isOfIdentity, KeyChangedError } from "../identity/identity-errors.ts";
import {
  ChangeTooLargeError,
  isOfOneChange,
  KeyValueMissingError,
  NameEncodingError,
} from "./decode-errors.ts";
import type { ChangeDecoderOptions } from "./decoder-options.ts";
import { EventTooLong } from "./event-bytes.ts";
import { NotName } from "./pgoutput/reader.ts";
import { planAt, type RelationPlan } from "./relation-plan.ts";
import type { Relations } from "./relations.ts";
import type { Transaction } from "./transaction.ts";

/** Ordinals that a message counts, by its type: Insert, Update, Delete (rule 1). */
const ORDINALS = new Map([
  [0x49, 1],
  [0x55, 2],
  [0x44, 1],
]);

/** A change as it is taken aside: its plan, its transaction with its ordinals counted, the message and its LSN. */
export interface Undecoded {
  readonly plan: RelationPlan;
  readonly transaction: Transaction;
  readonly ordinals: number;
  readonly payload: Buffer;
  readonly lsn: bigint;
}

/** Hands over changes that cannot become events, with all that decoding them once more needs. */
export class UndecodedChanges {
  readonly #options: Pick<ChangeDecoderOptions, "epoch" | "takeAside" | "identities">;
  readonly #relations: Relations;

  constructor(
    options: Pick<ChangeDecoderOptions, "epoch" | "takeAside" | "identities">,
    relations: Relations,
  ) {
    this.#options = options;
    this.#relations = relations;
  }

  /**
   * Takes the message aside at which decoding failed: events that it gave already (a key change's delete), from place `before` of
   * `out` on, are taken back. Returns false where that cannot be.
   */
  takeFailed(
    error: unknown,
    {
      transaction,
      payload,
      lsn,
    }: Pick<Undecoded, "payload" | "lsn"> & Partial<Pick<Undecoded, "transaction">>,
    out: SourceMessage[],
    before: number,
  ): boolean {
    if (!this.#options.takeAside || !transaction) return false;
    if (!(error instanceof PutAsideBefore) && !isOfOneChange(error)) return false;
    const ordinals = payload.length < 5 ? undefined : ORDINALS.get(payload[0] as number);
    const first = ordinals && this.#relations.get(payload.readUInt32BE(1));
    if (!first) return false;
    const { begin, ordinal, epoch } = transaction;
    const plan = planAt(first, epoch, begin.commitLsn, ordinal - ordinals + 1);
    if (plan.outbox) return false;
    for (const message of out.splice(before)) if (message instanceof EncodedChange) message.release();
    const why = error instanceof TributaryError ? because(error, plan) : error;
    return this.take({ plan, transaction, ordinals, payload: Buffer.from(payload), lsn }, why, out);
  }

  /** Takes a change aside. Returns false where that cannot be. */
  take(
    { plan, transaction, ordinals, payload, lsn }: Undecoded,
    error: Error,
    out: SourceMessage[],
  ): boolean {
    const { takeAside, identities } = this.#options;
    if (!takeAside) return false;
    const { topic, table, relation } = plan;
    const { begin, ordinal } = transaction;
    const prefix = commitPrefix(this.#options.epoch, begin.commitLsn);
    const first = ordinal - ordinals;
    if (error instanceof TributaryError && isOfIdentity(error.code)) {
      const from = prefix + formatOrdinal(first + 1);
      identities?.isHeldFrom(table, from);
    }
    const position = prefix + formatOrdinal(ordinal);
    const place = { topic, position, table, relation, begin, ordinal: first, lsn };
    const change: HeldMessage = { kind: "message", ...place, payload };
    return takeAside(change, error, out);
  }
}

/** The Truncate message of one relation. */
export function truncateOf(oid: number): Buffer {
  const message = Buffer.from([0x54, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
  message.writeUInt32BE(oid, 6);
  return message;
}

/** Names what came up while a message of so many bytes was decoded. */
export function namedFailure(error: unknown, lsn: string, bytes: number): unknown {
  if (error instanceof EventTooLong || isStringTooLong(error)) return new ChangeTooLargeError({ lsn, bytes });
  if (error instanceof NotName) return new NameEncodingError({ ...error, lsn }, true);
  return error;
}

/** Why a change cannot be given, where its table has another key by now: that it lacks a value of the old one follows from it. */
function because(error: TributaryError, plan: RelationPlan): TributaryError {
  if (!(error instanceof KeyValueMissingError)) return error;
  for (let later = plan.later; later; later = later.plan.later)
    if (later.plan.problem instanceof KeyChangedError) return later.plan.problem;
  return error;
}

/** Node's two ways to say that a text passes V8's limit of about 512 million characters. */
function isStringTooLong(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const { code } = error as NodeJS.ErrnoException;
  return (
    code === "ERR_STRING_TOO_LONG" ||
    (error instanceof RangeError && error.message === "Invalid string length")
  );
}
