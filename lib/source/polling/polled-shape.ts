import type pg from "pg";
import { quoteIdentifier } from "../../change/sql-identifier.ts";
import { formatTable } from "../../change/table-pattern.ts";
import type { Query } from "../batch/batch-reader.ts";
import type { ReadShape } from "../batch/row-messages.ts";
import type { PolledTable } from "./polled-table.ts";
import { PolledKeyChangedError } from "./polling-errors.ts";

const [BYTEA, TEXT, BPCHAR, VARCHAR] = [17, 25, 1042, 1043];

/** A table's shape, and which of the fields of a printed row travel: as in the log. */
export interface PolledShape {
  readonly table: ReadShape;
  readonly fields: number;
  readonly kept: readonly number[];
  /** SQL: about how many bytes a row has as text. */
  readonly bytes: string;
}

interface Column extends pg.QueryResultRow {
  readonly name: string;
  readonly type: number;
  readonly modifier: number;
  readonly generated: string;
  /** Below 0: it has no fixed one. */
  readonly length: number;
  /** Its place in the primary key; null: it is in none. */
  readonly keyed: number | null;
}

/** The shapes of polled tables: one object for one shape, so that it is told once. */
export class PolledShapes {
  /** `server_version_num`. */
  readonly #version: number;
  readonly #shapes = new Map<string, PolledShape>();

  constructor(version: number) {
    this.#version = version;
  }

  /** The shape of a table now. @throws PolledKeyChangedError when its key is another one by now. */
  async of(query: Query, table: PolledTable): Promise<PolledShape> {
    const rows = await query<Column>(
      `SELECT attname::text AS name, atttypid::int8::float8 AS type, atttypmod AS modifier, attgenerated::text AS generated, attlen AS length,
              (SELECT array_position((i.indkey::int2[])[0:i.indnkeyatts - 1], attnum) FROM pg_index i WHERE i.indrelid = attrelid AND i.indisprimary) AS keyed
         FROM pg_attribute WHERE attrelid = $1::oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum`,
      [table.oid],
    );
    const text = `${table.oid} ${JSON.stringify(rows)}`;
    const known = this.#shapes.get(text);
    if (known) return known;
    const key = rows
      .filter(({ keyed }) => keyed !== null)
      .sort((a, b) => Number(a.keyed) - Number(b.keyed))
      .map(({ name }) => name);
    const before = table.key.map(({ name }) => name);
    if (key.join("\0") !== before.join("\0"))
      throw new PolledKeyChangedError(formatTable(table.name), before, key);
    const kept = rows.flatMap(({ generated }, i) =>
      generated === "" || (generated === "s" && this.#version >= 180_000) ? [i] : [],
    );
    const shape = {
      ...{ fields: rows.length, kept, bytes: bytesOf(rows.filter((_, i) => kept.includes(i))) },
      table: {
        // A key that is chosen need not be in its replica identity here, and of an old row only the key is known.
        ...{ oid: table.oid, ...table.name, identity: "full" as const, wholeOldRows: false },
        primaryKey: table.key.map((column) => column.name),
        columns: kept.map((i) => {
          const { name, type, modifier } = rows[i] as Column;
          return { name, type, modifier, key: true };
        }),
      },
    };
    this.#shapes.set(text, shape);
    return shape;
  }
}

/** Of text and bytea the server knows the length without reading the value where that is kept apart from its row. */
function bytesOf(columns: readonly Column[]): string {
  const terms = columns
    .filter(({ length }) => length < 0)
    .map(({ name, type }) => {
      const column = `tributary_t.${quoteIdentifier(name)}`;
      if (type === BYTEA) return `coalesce(2 * octet_length(${column})::int8, 0)`;
      const text = [TEXT, BPCHAR, VARCHAR].includes(type) ? column : `${column}::text`;
      return `coalesce(octet_length(${text}), 0)::int8`;
    });
  return ["64", ...terms].join(" + ");
}
