import type { TableName } from "../../change/table-pattern.ts";

/** What the catalog knows of a type, as far as its text form depends on it. */
export type TypeFacts =
  | { readonly kind: "text" }
  | { readonly kind: "hstore" }
  | { readonly kind: "domain"; readonly base: number }
  | { readonly kind: "array"; readonly element: number; readonly delimiter: string };

/** What the catalog knows of a table and the log does not say. */
export interface RelationFacts {
  /** Names of the primary key's columns, in key order; empty without one. */
  readonly primaryKey: readonly string[];
  /** The partitioned tables above it, nearest first. */
  readonly ancestors: readonly TableName[];
}

/** Looks up what pgoutput leaves out. Answers are of now, not of the log's time: what was dropped since is absent. */
export interface TypeCatalog {
  /** The facts of these types and of the types they are made of. */
  resolve(oids: readonly number[]): Promise<ReadonlyMap<number, TypeFacts>>;
  relation(oid: number): Promise<RelationFacts | undefined>;
}
