import type { SourceChange } from "./change-stream.ts";
import type { PositionText } from "./position.ts";
import type { Topic } from "./topic.ts";

/** Bytes of a position's text: all ASCII. */
export const POSITION_BYTES = 34;

/** Memory that several changes share: used again once all of them are released, where they are. */
export interface Piece {
  readonly bytes: Buffer;
  /** Changes in it that are not released. */
  held: number;
}

/**
 * A change whose event was written as UTF-8 at once, for sources of many changes: the writer copies the bytes, and no
 * text is made of them unless someone asks. The bytes stay what they are until the change is released, which nobody must.
 */
export class EncodedChange implements SourceChange {
  readonly kind = "change";
  readonly topic: Topic;
  readonly partition: number;
  readonly table: string;
  /** The open event stands at `[start, end)` of `bytes`, the position's text in the `POSITION_BYTES` behind it. */
  readonly start: number;
  readonly end: number;
  #piece: Piece | undefined;

  /** `place`: where it stands; read here, not kept. */
  constructor(
    topic: Topic,
    partition: number,
    table: string,
    place: { readonly piece: Piece; readonly start: number; readonly end: number },
  ) {
    this.topic = topic;
    this.partition = partition;
    this.table = table;
    this.#piece = place.piece;
    this.start = place.start;
    this.end = place.end;
    place.piece.held++;
  }

  get bytes(): Buffer {
    if (this.#piece === undefined) throw new Error("the change was released");
    return this.#piece.bytes;
  }

  /** For who has copied it: nobody may ask for its bytes, text or position any more. */
  release(): void {
    if (this.#piece === undefined) return;
    this.#piece.held--;
    this.#piece = undefined;
  }

  get position(): PositionText {
    return this.bytes.toString("latin1", this.end, this.end + POSITION_BYTES);
  }

  get json(): string {
    return this.bytes.toString("utf8", this.start, this.end);
  }
}
