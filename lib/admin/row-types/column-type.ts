import type { TypeFacts } from "../../source/postgres/catalog/type-catalog.ts";
import { BUILTIN_TYPES, type BuiltinForm } from "../../source/postgres/decode/values/builtin-types.ts";

/** The types of a database's columns, as the catalog has them. */
export interface CatalogTypes {
  /** What domains, arrays and types of extensions are made of. */
  readonly facts: ReadonlyMap<number, TypeFacts>;
  /** Labels of enums, in their order. */
  readonly labels: ReadonlyMap<number, readonly string[]>;
}

/** Name of the generated helper for arrays: PostgreSQL does not say how deep one is. */
export const ARRAY_TYPE = "PgArray";
/** A value of a json column, as the library exports it. */
export const JSON_TYPE = "ColumnValue";

const BUILTIN = new Map(BUILTIN_TYPES.map(([oid, , , form]) => [oid, form]));
const ELEMENTS = new Map(BUILTIN_TYPES.map(([oid, array]) => [array, oid]));

/** Returns the TypeScript type in which values of a PostgreSQL type arrive: docs, "Values". NULL is not part of it. */
export function typeScriptOf(oid: number, types: CatalogTypes): string {
  const form = BUILTIN.get(oid);
  if (form !== undefined) return ofForm(form);
  const element = oid === 0 ? undefined : ELEMENTS.get(oid);
  if (element !== undefined) return arrayOf(typeScriptOf(element, types));
  const fact = types.facts.get(oid);
  switch (fact?.kind) {
    case "domain":
      return typeScriptOf(fact.base, types);
    case "array":
      return arrayOf(typeScriptOf(fact.element, types));
    case "hstore":
      return "{ readonly [key: string]: string | null }";
    default: {
      const labels = types.labels.get(oid);
      return labels && labels.length > 0
        ? labels.map((label) => JSON.stringify(label)).join(" | ")
        : "string";
    }
  }
}

function arrayOf(element: string): string {
  return `${ARRAY_TYPE}<${element}>`;
}

function ofForm(form: BuiltinForm): string {
  switch (form) {
    case "boolean":
      return "boolean";
    case "number":
      return "number";
    case "float":
      return 'number | "NaN" | "Infinity" | "-Infinity"';
    case "json":
      return JSON_TYPE;
    case "vector":
      return "readonly number[]";
    case "text":
    case "numeric":
    case "bpchar":
    case "char":
    case "bytea":
    case "date":
    case "time":
    case "timetz":
    case "timestamp":
    case "timestamptz":
    case "interval":
      return "string";
  }
}
