import type pg from "pg";
import type { TableName } from "../change/table-pattern.ts";
import { ConfigurationError } from "../change/tributary-error.ts";
import { JSON_NULL } from "../consume/api/verifiable-sink.ts";
import { parseExactJson } from "../consume/run/json.ts";
import { pageSelect, rowSelect } from "../source/postgres/backfill/page-sql.ts";
import { readShape, shapeSql, type TableShape } from "../source/postgres/backfill/table-shape.ts";
import { pgTypeCatalog, type TypeFacts } from "../source/postgres/catalog/type-catalog.ts";
import { arrayEncoder } from "../source/postgres/decode/values/array.ts";
import { BUILTIN_TYPES } from "../source/postgres/decode/values/builtin-types.ts";
import { type ColumnType, ColumnTypes } from "../source/postgres/decode/values/column-type.ts";
import type { NullPath } from "../source/postgres/decode/values/json-null.ts";
import { textForm } from "../source/postgres/decode/values/text.ts";
import { readServerVersion } from "../source/postgres/preflight/server-facts.ts";
import { AS_TEXT, boundedRows, type Texts } from "./bounded-rows.ts";
import type { ComparedColumn } from "./comparable.ts";

/** A row of the source: values as events carry them. */
export interface SourceRow {
  readonly values: Readonly<Record<string, unknown>>;
  /** The transaction that wrote it: another text, another version of the row. Only of single rows. */
  readonly version: string | undefined;
}

const PAGE_ROWS = 5_000;
/** Of rows that are given together. A single row may be larger. */
const BATCH_BYTES = 8 * 2 ** 20;
const FORMS = new Map(BUILTIN_TYPES.map(([oid, , , form]) => [oid, form]));
const TEXT = textForm("utf-8");
/** Forms of elements by the arrays' types. */
const ELEMENTS = new Map(BUILTIN_TYPES.flatMap(([, array, , form]) => (array === 0 ? [] : [[array, form]])));

/** Reads a captured table as its backfill would: published columns, row filter, values as in events. */
export class SourceTable {
  /** All published columns. */
  readonly columns: readonly ComparedColumn[];
  /** Those of the row's own key. */
  readonly key: readonly ComparedColumn[];
  readonly #client: pg.Client;
  readonly #shape: TableShape;
  readonly #types: readonly ColumnType[];

  private constructor(
    client: pg.Client,
    shape: TableShape,
    types: readonly ColumnType[],
    facts: ReadonlyMap<number, TypeFacts>,
  ) {
    this.#client = client;
    this.#shape = shape;
    this.#types = types;
    this.columns = shape.relation.columns.map(({ name, type }, i) => ({
      name,
      ...comparedAs(type, facts),
      read: readsText(type, facts) ? (text: string) => readPrinted(types[i] as ColumnType, text) : undefined,
    }));
    this.key = shape.pageIndexes.map((i) => this.columns[i] as ComparedColumn);
  }

  /**
   * Learns what there is to read, over an ordinary connection that stays the caller's; without a publication, all columns and rows.
   * @throws BackfillRefusedError where the table is not published, or has no key; ConfigurationError where its key
   * cannot be handed to a sink.
   */
  static async open(
    client: pg.Client,
    publication: string | undefined,
    table: TableName,
  ): Promise<SourceTable> {
    // Rows that a policy hides from the role are an error, not rows that the sink has too many.
    await client.query("SET row_security = off");
    const version = await readServerVersion(client);
    const { rows } = await client.query(shapeSql(table, publication, version));
    const shape = readShape(table, publication, version, rows);
    const types = new ColumnTypes(TEXT);
    const oids = shape.relation.columns.map(({ type }) => type);
    const unknown = oids.filter((oid) => !types.has(oid));
    const catalog = pgTypeCatalog((sql, values) => client.query<pg.QueryResultRow>(sql, values));
    const facts = unknown.length > 0 ? await catalog.resolve(unknown) : new Map<number, TypeFacts>();
    types.learn(unknown, facts);
    const made = new SourceTable(
      client,
      shape,
      oids.map((oid) => types.get(oid)),
      facts,
    );
    const binary = made.key.find(({ form }) => form === "bytea");
    if (binary) {
      throw new ConfigurationError("The table", [
        { path: "key", value: binary.name, remedy: "a key of bytea cannot be compared" },
      ]);
    }
    return made;
  }

  /** All rows, in pages of a statement each, so that no snapshot is held over them, and in batches bounded in bytes. */
  async *pages(signal: AbortSignal): AsyncGenerator<readonly SourceRow[]> {
    let after: readonly string[] | null = null;
    for (;;) {
      signal.throwIfAborted();
      const page = { shape: this.#shape, where: undefined, after, rows: PAGE_ROWS };
      let rows = 0;
      for await (const batch of boundedRows(this.#client, pageSelect(page), BATCH_BYTES)) {
        signal.throwIfAborted();
        rows += batch.length;
        const last = batch.at(-1) as Texts;
        after = this.#shape.pageIndexes.map((i) => last[i] as string);
        yield batch.map((row) => ({ values: this.#values(row), version: undefined }));
      }
      if (rows < PAGE_ROWS) return;
    }
  }

  /** The row of a key now, or undefined. */
  async row(key: Readonly<Record<string, unknown>>): Promise<SourceRow | undefined> {
    const texts = this.key.map(({ name }) => String(key[name]));
    const [row] = await this.#query(rowSelect(this.#shape, texts, "xmin::text"));
    return row && { values: this.#values(row), version: row.at(-1) ?? undefined };
  }

  async #query(text: string): Promise<readonly Texts[]> {
    const { rows } = await this.#client.query<(string | null)[]>({ text, rowMode: "array", types: AS_TEXT });
    return rows;
  }

  #values(row: Texts): Record<string, unknown> {
    return Object.fromEntries(this.columns.map(({ name }, i) => [name, this.#value(row[i] ?? null, i)]));
  }

  #value(text: string | null, i: number): unknown {
    if (text === null) return null;
    const value = eventValue(this.#types[i] as ColumnType, text);
    // A string of JSON as it is printed, so that "1" is not taken for a print of 1.
    return typeof value === "string" && this.columns[i]?.form === "json" ? JSON.stringify(value) : value;
  }
}

/** A value as events carry it, with its JSON nulls. */
function eventValue({ encode, jsonNulls }: ColumnType, text: string): unknown {
  const bytes = Buffer.from(text);
  const value = parseExactJson(encode(bytes, 0, bytes.length));
  const paths = jsonNulls?.(bytes, 0, bytes.length) ?? [];
  return paths.reduce(withJsonNull, value);
}

/** Elements as texts, which are compared by their form: those of times and intervals depend on the session's settings. */
const elementTexts = arrayEncoder(TEXT.json, ",");

/** Reads a value that a sink gives as PostgreSQL prints it; another text stays as it is. */
function readPrinted(type: ColumnType, text: string): unknown {
  try {
    return eventValue(type, text);
  } catch {
    return readTexts(text);
  }
}

function readTexts(text: string): unknown {
  const bytes = Buffer.from(text);
  try {
    return parseExactJson(elementTexts(bytes, 0, bytes.length));
  } catch {
    return text;
  }
}

/** Arrays and hstore, also under domains. */
function readsText(type: number, facts: ReadonlyMap<number, TypeFacts>): boolean {
  const fact = facts.get(type);
  if (fact?.kind === "domain") return readsText(fact.base, facts);
  return ELEMENTS.has(type) || fact?.kind === "array" || fact?.kind === "hstore";
}

function comparedAs(
  type: number,
  facts: ReadonlyMap<number, TypeFacts>,
): Pick<ComparedColumn, "form" | "elements"> {
  const form = FORMS.get(type);
  if (form !== undefined) return { form };
  const fact = facts.get(type);
  if (fact?.kind === "domain") return comparedAs(fact.base, facts);
  const elements = fact?.kind === "array" ? comparedAs(fact.element, facts).form : ELEMENTS.get(type);
  return { form: "text", elements };
}

/** The value with a JSON null put where one stands; arrays are changed in place. */
function withJsonNull(value: unknown, path: NullPath): unknown {
  if (path.length === 0) return JSON_NULL;
  let array = value as unknown[];
  for (const index of path.slice(0, -1)) array = array[index] as unknown[];
  array[path.at(-1) as number] = JSON_NULL;
  return value;
}
