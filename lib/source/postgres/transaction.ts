import { formatLsn } from "../../change/lsn.ts";
import { commitPrefix } from "../../change/position.ts";
import type { Begin } from "./pgoutput/messages.ts";

const POSTGRES_EPOCH_MS = 946_684_800_000;

/** A transaction being read: what its changes share, computed once. */
export interface Transaction {
  readonly begin: Begin;
  /** First 24 characters of its positions. */
  readonly prefix: string;
  /** Commit time, milliseconds since 1970 UTC. */
  readonly timeMs: number;
  /** Members of `source`, up to the LSN's digits. */
  readonly sourceHead: string;
  /** Members of `source`, behind the LSN's digits and up to the ordinal's. */
  readonly sourceTail: string;
  /** Row changes counted so far (rule 1): an update counts two, each table of a truncate one. */
  ordinal: number;
  /** Logical messages counted so far. */
  messages: number;
  /** Ordinals up to this one were given before, on an earlier connection. */
  readonly given: number;
}

/** Opens a transaction. `last`: the position of the last change given, in its two parts. */
export function openTransaction(
  begin: Begin,
  epoch: number,
  last: { readonly prefix: string; readonly ordinal: number },
): Transaction {
  const prefix = commitPrefix(epoch, begin.commitLsn);
  const timeMs = Number(begin.commitTime / 1000n) + POSTGRES_EPOCH_MS;
  return {
    begin,
    prefix,
    timeMs,
    sourceHead: `,"txId":"${begin.xid}","lsn":"`,
    sourceTail: `","commitLsn":"${formatLsn(begin.commitLsn)}","epoch":${epoch},"ts_ms":${timeMs},"ordinal":`,
    ordinal: 0,
    messages: 0,
    given: prefix < last.prefix ? Number.POSITIVE_INFINITY : prefix === last.prefix ? last.ordinal : 0,
  };
}
