import { MalformedMessageError } from "./decode-errors.ts";

/** WAL data: one pgoutput message. */
export interface XLogData {
  readonly kind: "data";
  /** WAL start of what the payload tells. */
  readonly lsn: bigint;
  /** A view on the frame, not a copy. */
  readonly payload: Buffer;
}

/** The server is there, and how far its WAL has been read. */
export interface Keepalive {
  readonly kind: "keepalive";
  /** Current end of WAL on the server. */
  readonly walEnd: bigint;
  /** The server wants an answer at once, or it closes the link. */
  readonly replyRequested: boolean;
}

/**
 * Reads one frame of a replication copy stream: the content of one CopyData message, whole.
 *
 * https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-XLOGDATA
 * @throws MalformedMessageError
 */
export function parseCopyData(frame: Buffer): XLogData | Keepalive {
  switch (frame[0]) {
    case 0x77: // 'w': WAL start, WAL end, server clock, payload
      if (frame.length < 25) throw truncated("XLogData", "a header of 25 bytes", frame.length);
      return { kind: "data", lsn: frame.readBigUInt64BE(1), payload: frame.subarray(25) };
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
