import type { SourceChange } from "./change-stream.ts";
import { formatLsn } from "./lsn.ts";
import { commitPrefix, formatOrdinal } from "./position.ts";

/*
 * The members of an event around its rows, and their order: `{"op":…,"before":…,"after":…,"ts_ms":…,"source":{…`. Everything
 * that makes events writes them with this module. Format: docs, "Formats on the wire".
 */

/** Place of an event in the history of its source. */
export interface EventPlace {
  readonly epoch: number;
  /** The transaction's commit LSN; with a relay, its batch. */
  readonly commitLsn: bigint;
  readonly ordinal: number;
  /** The event's own LSN, as PostgreSQL prints it. */
  readonly lsn: string;
  readonly txId: string;
  /** Commit time, milliseconds since 1970 UTC. */
  readonly timeMs: number;
}

/** Members of `source` that do not depend on the event's place. */
export interface SourceMembers {
  readonly pipeline: string;
  readonly database: string;
  readonly schema: string;
  readonly table: string;
  /** Default: `"false"`. */
  readonly snapshot?: "true" | undefined;
  readonly schemaVersion: string;
  readonly key: readonly string[];
  readonly mode?: string | undefined;
  /** Set where the event is for one consumer alone. */
  readonly backfill?: { readonly run: number; readonly consumer: string } | undefined;
}

/** The text between the values of a place. The decoder of the log writes it, and the values, as bytes: once a transaction, not once a change. */
export const PLACE = {
  txId: ',"txId":"',
  lsn: '","lsn":"',
  commitLsn: '","commitLsn":"',
  epoch: '","epoch":',
  timeMs: ',"ts_ms":',
  ordinal: ',"ordinal":',
} as const;

/** Opens `source`, behind the rows. `nowMs`: when the event was made, milliseconds since 1970 UTC. */
export function openSource(nowMs: number): string {
  return `,"ts_ms":${nowMs},"source":{`;
}

/** Members of `source` in front of the place. */
export function sourceHead({ pipeline, database, schema, table }: SourceMembers): string {
  return members({ connector: "postgresql", name: pipeline, db: database, schema, table });
}

/** The place, up to the ordinal's digits. */
export function sourcePlace({ txId, lsn, commitLsn, epoch, timeMs }: Omit<EventPlace, "ordinal">): string {
  return `${PLACE.txId}${txId}${PLACE.lsn}${lsn}${PLACE.commitLsn}${formatLsn(commitLsn)}${PLACE.epoch}${epoch}${PLACE.timeMs}${timeMs}${PLACE.ordinal}`;
}

/** Members of `source` behind the place. */
export function sourceTail({ snapshot, schemaVersion, key, mode, backfill }: SourceMembers): string {
  return `,${members({ snapshot: snapshot ?? "false", schemaVersion, key, mode, backfill })}`;
}

/** An event, left open inside `source`. `rows`: its text up to there, such as `{"op":"c","before":null,"after":{…}`. */
export function openEvent(
  rows: string,
  nowMs: number,
  source: SourceMembers,
  place: EventPlace,
): Pick<SourceChange, "position" | "json"> {
  const { epoch, commitLsn, ordinal } = place;
  return {
    position: commitPrefix(epoch, commitLsn) + formatOrdinal(ordinal),
    json: `${rows}${openSource(nowMs)}${sourceHead(source)}${sourcePlace(place)}${ordinal}${sourceTail(source)}`,
  };
}

/** Content of an event of `op: "m"`. */
export interface MessageFacts
  extends Pick<SourceMembers, "pipeline" | "database" | "snapshot" | "mode" | "backfill"> {
  readonly schema?: string;
  readonly table?: string;
  readonly prefix: string;
  readonly content: Uint8Array;
  readonly transactional: boolean;
  /** Names what is wrong with content that is no event. */
  readonly problem?: string;
  /** Time at which it was handled, milliseconds since 1970 UTC. */
  readonly nowMs: number;
}

/** A message as an event; by default it belongs to no table. */
export function messageEvent(
  { prefix, content, transactional, problem, nowMs, ...source }: MessageFacts,
  place: EventPlace,
): Pick<SourceChange, "position" | "json"> {
  const message = { prefix, content: Buffer.from(content).toString("base64"), transactional, problem };
  const rows = `{"op":"m","before":null,"after":null,${members({ message })}`;
  return openEvent(rows, nowMs, { schema: "", table: "", schemaVersion: "", key: [], ...source }, place);
}

function members(of: Readonly<Record<string, unknown>>): string {
  return JSON.stringify(of).slice(1, -1);
}
