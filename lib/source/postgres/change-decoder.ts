import type { PositionText } from "../../change/position.ts";
import type { RouteTable } from "../../change/route.ts";
import type { Pipeline } from "../../pipeline.ts";
import type { SourceMessage } from "../change-source.ts";
import type { CommitFingerprint } from "./slot-record.ts";
import type { TypeCatalog } from "./type-catalog.ts";

/** How the bytes of text are read: what the session's client_encoding makes of them, or latin1 by choice. */
export type TextEncoding = "utf-8" | "latin1";

/** A logical message of our own (prefix `tributary.`): heartbeats and marks. Never delivered as an event. */
export interface OwnMessage {
  readonly prefix: string;
  /** A view on the read buffer: valid during the call only. */
  readonly content: Buffer;
  readonly lsn: bigint;
  readonly transactional: boolean;
}

export interface ChangeDecoderOptions {
  readonly pipeline: Pick<Pipeline, "name" | "topics" | "source">;
  /** Name of the database: `source.db`. */
  readonly database: string;
  readonly epoch: number;
  readonly route: RouteTable;
  readonly catalog: TypeCatalog;
  readonly encoding: TextEncoding;
  /** Milliseconds since 1970 UTC; the clock of `ts_ms`. */
  readonly now?: () => number;
  /** Changes at or before this position are not given. */
  readonly resumeAfter?: PositionText;
  /** Called at every BEGIN, replayed ones too: the forked-history check (rule 19). An error thrown here leaves `decode`. */
  readonly onBegin?: (commit: CommitFingerprint) => void;
  readonly onMessage?: (message: OwnMessage) => void;
}

/** Turns pgoutput messages into routed change events. */
export class ChangeDecoder {
  constructor(_options: ChangeDecoderOptions) {}

  /**
   * Decodes one pgoutput message: the payload of an XLogData whose WAL start is `lsn`. Appends to `out` and
   * keeps nothing of `payload`. Gives a promise only when a relation needs the catalog: await it before the
   * next message.
   */
  decode(_payload: Buffer, _lsn: bigint, _out: SourceMessage[]): Promise<void> | undefined {
    throw new Error("in work");
  }

  /** A new connection: relations come anew; changes at or before the last one given are not given again. */
  reconnected(): void {}

  /** Between BEGIN and COMMIT. */
  get inTransaction(): boolean {
    return false;
  }
}
