import type { Entry } from "./partition-queue.ts";

/** Entries to send in one PutRecords call: at most one of a partition. Give it back by `settle` or `fail`. */
export interface PutRequest {
  readonly entries: readonly Entry[];
  readonly bytes: number;
}

/** What became of an entry: `failed` and `throttled` ones are sent again. */
export type EntryResult = "stored" | "failed" | "throttled";
