import type { SourceChange } from "./change-stream.ts";
import { formatLsn } from "./lsn.ts";
import { commitPrefix, formatOrdinal } from "./position.ts";

/** Place of an event in the history of its source. */
export interface MessagePlace {
  readonly epoch: number;
  /** The transaction's commit LSN; with a relay, its batch. */
  readonly commitLsn: bigint;
  readonly ordinal: number;
  /** The event's own LSN, as PostgreSQL prints it. */
  readonly lsn: string;
  readonly txId: string;
  /** When it was committed, milliseconds since 1970 UTC. */
  readonly timeMs: number;
}

/** Content of an event of `op: "m"`. */
export interface MessageFacts {
  readonly pipeline: string;
  readonly database: string;
  readonly prefix: string;
  readonly content: Uint8Array;
  readonly transactional: boolean;
  /** Of what is no event: what is wrong with it. */
  readonly problem?: string;
  /** When it was handled, milliseconds since 1970 UTC. */
  readonly nowMs: number;
  /** Members of `source` that differ from those of a message that belongs to no table, and more. */
  readonly source?: Readonly<Record<string, unknown>>;
}

/** A message as an event: its position, and its JSON left open inside `source`. Format: docs, "Formats on the wire". */
export function messageEvent(
  { pipeline, database, prefix, content, transactional, problem, nowMs, source }: MessageFacts,
  { epoch, commitLsn, ordinal, lsn, txId, timeMs }: MessagePlace,
): Pick<SourceChange, "position" | "json"> {
  const event = {
    op: "m",
    before: null,
    after: null,
    message: { prefix, content: Buffer.from(content).toString("base64"), transactional, problem },
    ts_ms: nowMs,
    source: {
      connector: "postgresql",
      name: pipeline,
      db: database,
      schema: "",
      table: "",
      txId,
      lsn,
      commitLsn: formatLsn(commitLsn),
      epoch,
      ts_ms: timeMs,
      ordinal,
      snapshot: "false",
      schemaVersion: "",
      key: [],
      ...source,
    },
  };
  return {
    position: commitPrefix(epoch, commitLsn) + formatOrdinal(ordinal),
    json: JSON.stringify(event).slice(0, -2),
  };
}
