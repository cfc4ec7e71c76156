import * as z from "zod";
import type { TableName } from "../../change/table-pattern.ts";
import { captures, type SourceDefinition } from "../../definition/definition.ts";
import type { ReadShape, RowValues } from "../batch/row-messages.ts";

/** A table as it was when a trigger fired: kept beside the changes, since the table may be another one when they are read. */
export interface AuditShape {
  readonly shape: ReadShape;
  /** Indexes of the columns that travel; a printed row has the others too. */
  readonly kept: readonly number[];
  /** Number of fields of a printed row. */
  readonly fields: number;
}

const described = z.object({
  schema: z.string(),
  table: z.string(),
  ancestors: z.array(z.tuple([z.string(), z.string()])),
  columns: z.array(z.tuple([z.string(), z.number(), z.number(), z.string()])),
  key: z.array(z.string()),
});

/**
 * Reads what the trigger function described. A partition's rows are its table's: of the tables above it that are captured,
 * the highest. Generated columns travel as in the log: stored ones from PostgreSQL 18 on.
 */
export function readShape(
  text: string,
  relid: number,
  source: SourceDefinition,
  version: number,
): AuditShape {
  const { schema, table, ancestors, columns, key } = described.parse(JSON.parse(text));
  const above = ancestors
    .map(([s, t]): TableName => ({ schema: s, table: t }))
    .filter((name) => captures(source, name));
  const name = above.at(-1) ?? { schema, table };
  const kept = columns.flatMap(([, , , generated], i) =>
    generated === "" || (generated === "s" && version >= 180_000) ? [i] : [],
  );
  return {
    shape: {
      oid: relid,
      ...name,
      identity: "full",
      primaryKey: key,
      wholeOldRows: true,
      columns: kept.map((i) => {
        const [column, type, modifier] = columns[i] as (typeof columns)[number];
        return { name: column, type, modifier, key: true };
      }),
    },
    kept,
    fields: columns.length,
  };
}

/** The values that travel, of all fields of a printed row. @throws RangeError when it has another number of fields. */
export function keptValues({ kept, fields }: AuditShape, values: RowValues): RowValues {
  if (values.length !== fields)
    throw new RangeError(`the row has ${values.length} fields, its shape ${fields}`);
  return kept.length === fields ? values : kept.map((i) => values[i] ?? null);
}
