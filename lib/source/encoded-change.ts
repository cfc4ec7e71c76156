import type { PositionText } from "../change/position.ts";
import type { Topic } from "../change/topic.ts";
import type { SourceChange } from "./change-source.ts";

/** Bytes of a position's text: all ASCII. */
export const POSITION_BYTES = 34;

/**
 * A change whose event was written as UTF-8 at once, for sources of many changes: the writer copies the bytes, and no
 * text is made of them unless someone asks. The bytes stay what they are as long as the change is held.
 */
export class EncodedChange implements SourceChange {
  readonly kind = "change";
  readonly topic: Topic;
  readonly partition: number;
  readonly table: string;
  /** Holds the open event at `[start, end)` and the position's text in the `POSITION_BYTES` behind it. */
  readonly bytes: Buffer;
  readonly start: number;
  readonly end: number;

  /** `place`: where it stands now; read here, not kept. */
  constructor(
    topic: Topic,
    partition: number,
    table: string,
    place: { readonly bytes: Buffer; readonly start: number; readonly end: number },
  ) {
    this.topic = topic;
    this.partition = partition;
    this.table = table;
    this.bytes = place.bytes;
    this.start = place.start;
    this.end = place.end;
  }

  get position(): PositionText {
    return this.bytes.toString("latin1", this.end, this.end + POSITION_BYTES);
  }

  get json(): string {
    return this.bytes.toString("utf8", this.start, this.end);
  }
}
