import type { PositionText } from "../../../change/position.ts";
import type { AskedRow } from "./reread-record.ts";

/** A row's create that was given without a large value: what the decoder tells of it. */
export interface IncompleteCreate {
  /** As `formatTable` writes it. */
  readonly table: string;
  /** The row's key, by column; undefined: no text that a query could hold. */
  readonly key: AskedRow["key"] | undefined;
  readonly position: PositionText;
  readonly commitLsn: bigint;
}
