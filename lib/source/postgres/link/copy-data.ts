import { MalformedMessageError } from "../decode/decode-errors.ts";

/** The server is there, and how far its WAL has been read. */
export interface Keepalive {
  readonly kind: "keepalive";
  /** Current end of WAL on the server. */
  readonly walEnd: bigint;
  /** The server wants an answer at once, or it closes the link. */
  readonly replyRequested: boolean;
}

/*
 * The frames of a replication copy stream: each is the content of one CopyData message.
 * https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-XLOGDATA
 */

/** Offset of the WAL start in XLogData. */
export const LSN = 1;
/** Bytes before the payload of an XLogData. */
export const XLOG_DATA_HEADER = 25;

const XLOG_DATA = 0x77;

/** Returns true if the frame in `buffer[start, end)` is an XLogData with its header whole. */
export function isXLogData(buffer: Buffer, start: number, end: number): boolean {
  return buffer[start] === XLOG_DATA && end - start >= XLOG_DATA_HEADER;
}

/** Reads a frame that is no XLogData. @throws MalformedMessageError */
export function parseKeepalive(frame: Buffer): Keepalive {
  switch (frame[0]) {
    case XLOG_DATA: // 'w': WAL start, WAL end, server clock, payload
      throw truncated("XLogData", `a header of ${XLOG_DATA_HEADER} bytes`, frame.length);
    case 0x6b: // 'k': WAL end, server clock, reply requested
      if (frame.length !== 18) throw truncated("Keepalive", "18 bytes", frame.length);
      return { kind: "keepalive", walEnd: frame.readBigUInt64BE(1), replyRequested: frame[17] === 1 };
    default:
      throw new MalformedMessageError({
        type: "CopyData",
        offset: 0,
        expected: "'w' (XLogData) or 'k' (keepalive)",
        got: frame.length === 0 ? "nothing" : `byte 0x${(frame[0] as number).toString(16).padStart(2, "0")}`,
      });
  }
}

function truncated(type: string, expected: string, length: number): MalformedMessageError {
  return new MalformedMessageError({ type, offset: length, expected, got: `${length} bytes` });
}
