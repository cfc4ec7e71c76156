import type { ClaimStore } from "../../change/claim-store.ts";
import type { ChangeEventJson } from "../../change/event.ts";
import { type ClaimRecord, parseRecord, positionOf } from "../../change/record.ts";
import { ClaimMismatchError, ClaimMissingError, RecordFormatError } from "../../change/record-errors.ts";
import { whilePassing } from "../api/retries.ts";
import { ClaimStoreNotNamedError } from "../consume-errors.ts";
import { ByteBudget } from "./byte-budget.ts";
import { parseExactJson } from "./json.ts";

/** Reads changes that were too large for the stream, when their turn comes, a bounded number of bytes at a time. */
export class ClaimReader {
  readonly #open: () => Promise<ClaimStore | undefined>;
  readonly #memory: ByteBudget;
  #store: Promise<ClaimStore | undefined> | undefined;

  /**
   * `open` is called when the first claim is met. `bytesAtOnce` bounds the objects in use; while its handler runs,
   * a change takes about five times its size.
   */
  constructor(open: () => Promise<ClaimStore | undefined>, bytesAtOnce: number) {
    this.#open = open;
    this.#memory = new ByteBudget(bytesAtOnce);
  }

  /** Runs `work`, which reads the claim and uses its event, once there is room for it. */
  withRoom<T>({ claim }: ClaimRecord, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    return this.withBytes(claim.bytes, signal, work);
  }

  /** Runs `work`, which uses events of so many bytes that did not travel as such, once there is room for them. */
  withBytes<T>(bytes: number, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    return this.#memory.use(bytes, signal, work);
  }

  /**
   * The event of a claim, whole and unaltered. What may pass is tried again until `signal` aborts.
   * @throws ClaimMissingError, ClaimMismatchError: the change's own failures (see `isClaimFault`);
   *   ClaimStoreNotNamedError and the store's other errors: all claims fail alike.
   */
  async read(record: ClaimRecord, signal: AbortSignal): Promise<ChangeEventJson> {
    this.#store ??= this.#open();
    const store = await this.#store;
    if (store === undefined) throw new ClaimStoreNotNamedError(record.claim.bucket);
    return whilePassing(signal, async () => asEvent(record, await store.get(record.claim, signal)));
  }
}

/** Returns whether it is this change's object that is wrong, and not the store or the way to it. */
export function isClaimFault(error: unknown): boolean {
  return error instanceof ClaimMissingError || error instanceof ClaimMismatchError;
}

/** The object was written before the event's predecessor was known: the pointer says it. */
function asEvent({ claim, position, after }: ClaimRecord, bytes: Uint8Array): ChangeEventJson {
  const event = parse(bytes, claim);
  const found = positionOf(event);
  if (found !== position)
    throw new ClaimMismatchError(claim, `it is the change at ${found}, expected ${position}`);
  return { ...event, source: { ...event.source, after } };
}

function parse(bytes: Uint8Array, claim: ClaimRecord["claim"]): ChangeEventJson {
  try {
    const record = parseRecord(bytes, parseExactJson);
    const event = record.kind === "events" ? record.events[0] : undefined;
    if (event !== undefined) return event;
  } catch (error) {
    if (!(error instanceof RecordFormatError)) throw error;
  }
  throw new ClaimMismatchError(claim, "it is not a change event");
}
