import type { ClaimCheck } from "../../change/claim-check.ts";
import { type ClaimStore, claimOf, parkedPath, pathSegment } from "../../change/claim-store.ts";
import { asUnpacked } from "../../change/event-texts.ts";
import type { PositionText } from "../../change/position.ts";
import type { RecordHeader } from "../../change/record.ts";
import { whilePassing } from "../api/retries.ts";
import { ParkedTooLargeError } from "./hold-errors.ts";

/** DynamoDB takes items of 400 KB; larger events than this go to the claim store. */
const LARGEST_PARKED_BYTES = 200 * 1024;

/** The event of a parked change, as it is stored. */
export interface ParkedPayload {
  readonly json?: string;
  readonly claim?: ClaimCheck;
  readonly bytes: number;
}

/** Makes events into what can be parked: text for the state table, or an object of the claim store. */
export class ParkedPayloads {
  readonly #path: string;
  readonly #open: () => Promise<ClaimStore | undefined>;

  /** `open` is called when the first event is met that is too large for the state table. */
  constructor(pipeline: string, consumer: string, open: () => Promise<ClaimStore | undefined>) {
    this.#path = parkedPath(pipeline, consumer);
    this.#open = open;
  }

  /**
   * The payload of an event, whose text is kept as it was written; durable where it is a claim. What may pass is tried
   * again until `signal` aborts.
   * @throws ParkedTooLargeError without a claim store, and the store's errors.
   */
  async of(
    json: string,
    position: PositionText,
    header: RecordHeader,
    signal: AbortSignal,
  ): Promise<ParkedPayload> {
    const bytes = Buffer.byteLength(json);
    if (bytes <= LARGEST_PARKED_BYTES) return { json, bytes };
    const store = await this.#open();
    if (store === undefined) throw new ParkedTooLargeError(bytes);
    const { topic, partition } = header;
    // A record of its own, as the capture task writes what is too large for the stream.
    const object = Buffer.from(asUnpacked(json, header));
    const segment = pathSegment(topic);
    const path = [this.#path, segment, String(partition), position].join("/");
    const claim = claimOf(store, path, object);
    await whilePassing(signal, () => store.put(claim, object, signal));
    return { claim, bytes: object.length };
  }
}
