import type { PositionText } from "../../../change/position.ts";
import { type Tuple, UNCHANGED } from "../decode/pgoutput/tuple.ts";
import type { PlannedColumn, RelationPlan } from "../decode/relation-plan.ts";
import { NotText } from "../decode/values/encoder.ts";
import type { TextForm } from "../decode/values/text.ts";
import type { AskedRow } from "./reread-record.ts";

/** A row's create that was given without a large value. */
export interface IncompleteCreate {
  /** As `formatTable` writes it. */
  readonly table: string;
  /** The row's key, by column; undefined: no text that a query could hold. */
  readonly key: AskedRow["key"] | undefined;
  readonly position: PositionText;
  readonly commitLsn: bigint;
}

/** The texts of a row's key by column, for a look at the table; undefined: no text that a query could hold. */
export function keyTexts(
  { watched, columns }: RelationPlan,
  buffer: Buffer,
  row: Tuple,
  old: Tuple | undefined,
  form: TextForm,
): Record<string, string> | undefined {
  const texts: Record<string, string> = {};
  for (const i of watched) {
    const from = row.start[i] === UNCHANGED && old !== undefined ? old : row;
    try {
      const text = form.decode(buffer, from.start[i] as number, from.end[i] as number);
      texts[(columns[i] as PlannedColumn).name] = text;
    } catch (error) {
      if (error instanceof NotText) return undefined;
      throw error;
    }
  }
  return texts;
}
