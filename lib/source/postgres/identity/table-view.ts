import type { PositionText } from "../../../change/position.ts";
import { formatTable, parseTable, type TableName } from "../../../change/table-pattern.ts";
import type { TributaryError } from "../../../change/tributary-error.ts";
import type { Relation } from "../decode/pgoutput/messages.ts";
import type { CatalogTable } from "./catalog-look.ts";
import { KeyChangedError, TableReplacedError } from "./identity-errors.ts";
import { findKey, type KeyColumn, type TableStretch } from "./known-tables.ts";

/** A captured name whose table, or key, is another one than what is known of it. */
export interface IdentityDifference {
  /** The captured name. */
  readonly table: string;
  readonly error: KeyChangedError | TableReplacedError;
  /** The table that has the name now; undefined: none. */
  readonly now: CatalogTable | undefined;
  /** Changes from here on are not given under what is known. */
  readonly from: PositionText;
}

/** The way to give the changes of a relation from a position on (undefined: from the first). */
export interface Span {
  readonly from: PositionText | undefined;
  /** Undefined: the log's own flags say it. */
  readonly key: readonly KeyColumn[] | undefined;
  readonly problem: TributaryError | undefined;
  /** True if a change is given of whose old row the log does not tell the key: a sweep behind it puts right what it does to the old one. */
  readonly swept: boolean;
}

/** A relation of the log, as far as its table is known. */
export interface TableView {
  /** The name that its changes go under. */
  readonly name: TableName;
  /** Of a table that has left its name for good: nothing of it is given. */
  readonly passedOver: boolean;
  /** In order; at least one. */
  readonly spans: readonly [Span, ...Span[]];
}

/** The captured tables, as they are known and as they differ from that. */
export interface TablesSeen {
  /** By captured name. */
  readonly known: ReadonlyMap<string, readonly TableStretch[]>;
  /** The captured name of each table that has one. */
  readonly names: ReadonlyMap<number, string>;
  /** By captured name. */
  readonly differences: ReadonlyMap<string, IdentityDifference>;
  readonly captures: (table: TableName) => boolean;
  /** True if nothing can be held: what the log does not tell of old rows is passed over. */
  readonly lenient: boolean;
  readonly topicOf: (table: string) => string;
}

/** Returns the way to give the changes of a relation; undefined: nothing is known of it. */
export function viewOf(relation: Relation, tables: TablesSeen): TableView | undefined {
  const { known: all, names, differences, captures, lenient, topicOf } = tables;
  const told = formatTable(relation);
  const before = names.get(relation.oid);
  const moved = before !== undefined && before !== told;
  const problem = differences.get(told) ?? (moved ? differences.get(before) : undefined);
  // A change made while the table had another name for a time is its own all the same.
  const name = moved && !(problem && captures(relation)) ? before : told;
  const stretches = all.get(name);
  const whole = (error: TributaryError | undefined): TableView => ({
    name: parseTable(name),
    passedOver: error === undefined,
    spans: [span(undefined, undefined, error)],
  });
  if (moved && problem) return whole(problem.error);
  if (!stretches) return problem && whole(problem.error);
  const difference = differences.get(name);
  const current = stretches.at(-1) as TableStretch;
  const own = stretches.filter(({ oid }) => oid === relation.oid);
  if (own.length === 0) return whole(difference?.error);
  const keyOf = (key: readonly KeyColumn[]) => keyIn(relation, key);
  const [first] = own as [TableStretch, ...TableStretch[]];
  const given = own.flatMap(({ from, key, sweptTo }, i): Span[] => {
    const known = span(i === 0 ? undefined : from, keyOf(key));
    if (sweptTo === undefined) return [{ ...known, swept: lenient }];
    const next = own[i + 1]?.from ?? difference?.from;
    const strict = next === undefined || sweptTo < next;
    return [{ ...known, swept: true }, ...(strict ? [{ ...known, from: sweptTo, swept: lenient }] : [])];
  });
  const spans = given as [Span, ...Span[]];
  const left = stretches.find(({ oid, from }) => oid !== relation.oid && from > first.from);
  if (left && current.oid !== relation.oid)
    spans.push(span(left.from, undefined, replaced(name, current, relation, topicOf)));
  else if (difference && !predates(relation, current, difference))
    spans.push(span(difference.from, current.key, difference.error));
  return { name: parseTable(name), passedOver: false, spans };
}

function replaced(
  table: string,
  { oid }: TableStretch,
  relation: Relation,
  topicOf: (table: string) => string,
): TableReplacedError {
  return new TableReplacedError({ table, oid, now: relation.oid, topic: topicOf(table) });
}

/** A key as it can be used for a relation; undefined: its own flags are to be. */
function keyIn(relation: Relation, key: readonly KeyColumn[]): readonly KeyColumn[] | undefined {
  if (findKey(key, relation) !== undefined) return key;
  // A name in between that nobody saw: the log says which columns it is.
  return relation.identity === "full" ? key : undefined;
}

/** Returns true if a relation, as the log tells it, is of the time before a key's change. */
function predates(relation: Relation, current: TableStretch, { error, now }: IdentityDifference): boolean {
  if (!(error instanceof KeyChangedError) || !now) return false;
  if (relation.identity !== "full") return isFlagged(relation, current.key);
  return findKey(now.key, relation) === undefined && findKey(current.key, relation) !== undefined;
}

/** Returns true if the log's flags say this key. */
export function isFlagged(relation: Relation, key: readonly KeyColumn[]): boolean {
  const flagged = relation.columns.filter((column) => column.key);
  return (
    flagged.length === key.length &&
    key.every(({ names, type }, i) => names.at(-1) === flagged[i]?.name && type === flagged[i]?.type)
  );
}

function span(from: PositionText | undefined, key: Span["key"], problem?: TributaryError): Span {
  return { from, key, problem, swept: false };
}
