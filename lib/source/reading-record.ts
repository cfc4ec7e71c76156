import type { KeyRecord } from "./known-keys.ts";
import type { NewEpoch } from "./postgres/slot/slot-record.ts";

/** Progress of a source that reads tables: kept outside the database, under the capture lease (rule 27). */
export interface ReadingState {
  /** The kind of source that wrote it. */
  readonly kind: string;
  readonly epoch: number;
  /** Name of the database. */
  readonly database: string;
  /** `commitLsn` of the last position that was acknowledged; 0 before the first. */
  readonly confirmedLsn: bigint;
  /** The bounds of what is being read now, as the source's kind writes them: JSON, stored before the first change goes out. */
  readonly place: unknown;
}

/** Keeps the reading state. `write` resolves only when the state is durable and was written under the capture lease. */
export interface ReadingRecord {
  read(): Promise<ReadingState | undefined>;
  /** The epoch that a first start begins; undefined: the first one. */
  newEpoch(): Promise<NewEpoch | undefined>;
  /** @throws CaptureLeaseLostError when another capture task has taken over. */
  write(state: ReadingState): Promise<void>;
  /** For sources that find deletes by comparing keys. */
  readonly keys: KeyRecord;
}
