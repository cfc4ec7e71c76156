import type { TableName } from "../../../change/table-pattern.ts";
import type { PublicationTerms } from "./terms.ts";

/** A captured table, as far as a publication's terms touch it. */
export interface ContractTable extends TableName {
  readonly oid: number;
  /** `p`: partitioned. */
  readonly kind: string;
  /** True if it has stored generated columns. */
  readonly generated: boolean;
}

/** A difference between what is published of a table and what was stored. */
export interface TermsDifference {
  readonly table: ContractTable;
  /**
   * `narrowed`: changes are dropped now. `restored`: it says the same as before, by another transaction: in between it may have said
   * less. `widened`: more is published.
   */
  readonly kind: "narrowed" | "restored" | "widened";
  /** The changes that are missing, or may be: `update, delete`. */
  readonly what: string;
}

/** `what` of a difference where nobody knows which changes a publication left out. */
export const ANY_CHANGE = "changes of any kind";
/** A publication does not hold the table. */
export const ALL_CHANGES = "all changes";
const ACTIONS = ["insert", "update", "delete", "truncate"] as const;

/**
 * Compares a publication with what it said of the captured tables when it was last looked at (rule 40). Rows of the catalog that our own last
 * ALTER wrote are as we want them. A row that was written anew is judged by what it says: less, more, or, where it says the
 * same, that it was changed and put back.
 */
export function compareTerms(
  before: PublicationTerms,
  now: PublicationTerms,
  tables: readonly ContractTable[],
): readonly TermsDifference[] {
  const whole = ofPublication(before, now);
  return tables.flatMap((table) => {
    const found = [...whole(table), ...ofTable(before, now, table)];
    const kind = (["narrowed", "restored", "widened"] as const).find((k) => found.some((d) => d.kind === k));
    if (kind === undefined) return [];
    const what = new Set(found.filter((d) => d.kind === kind).map((d) => d.what));
    return [{ table, kind, what: what.has(ALL_CHANGES) ? ALL_CHANGES : [...what].join(", ") }];
  });
}

type Found = Pick<TermsDifference, "kind" | "what">;

/** Judges what the publication's own row means for each of its tables. */
function ofPublication(
  before: PublicationTerms,
  now: PublicationTerms,
): (table: ContractTable) => readonly Found[] {
  if (now.xmin === before.xmin || isOwn(now.xmin, before)) return () => [];
  const off = ACTIONS.filter((action) => before[action] && !now[action]);
  const on = ACTIONS.filter((action) => !before[action] && now[action]);
  const generated = (terms: PublicationTerms) => terms.generated === "s";
  const asBefore =
    off.length + on.length === 0 &&
    before.viaRoot === now.viaRoot &&
    generated(before) === generated(now) &&
    before.owner === now.owner;
  return (table) => {
    if (!covers(before, table).length) return [];
    if (asBefore) return [{ kind: "restored", what: ANY_CHANGE }];
    const found: Found[] = [];
    if (off.length > 0) found.push({ kind: "narrowed", what: off.join(", ") });
    if (on.length > 0) found.push({ kind: "widened", what: on.join(", ") });
    if (before.viaRoot && !now.viaRoot && table.kind === "p")
      found.push({ kind: "narrowed", what: ALL_CHANGES });
    if (generated(before) && !generated(now) && table.generated)
      found.push({ kind: "narrowed", what: "values of generated columns" });
    return found;
  };
}

/** Judges what the rows mean by which the publication holds a table. */
function ofTable(before: PublicationTerms, now: PublicationTerms, table: ContractTable): readonly Found[] {
  const [old, fresh] = [covers(before, table), covers(now, table)];
  if (old.length === 0) return fresh.length === 0 ? [] : [{ kind: "widened", what: ALL_CHANGES }];
  if (fresh.length === 0) return [{ kind: "narrowed", what: ALL_CHANGES }];
  const [said, says] = [widest(old), widest(fresh)];
  const lasting = old.filter(({ row }) => fresh.some((cover) => cover.row === row));
  if (lasting.length > 0 && isAsWide(widest(lasting), said)) return [];
  if (fresh.some(({ xmin }) => isOwn(xmin, before))) return [];
  if (!isAsWide(says, said)) {
    const columns = missingColumns(said.columns, says.columns);
    return [
      {
        kind: "narrowed",
        what: [
          ...(said.filter === says.filter || says.filter === null
            ? []
            : ["changes of rows that its filter leaves out"]),
          ...(columns === undefined ? [] : [`values of ${columns}`]),
        ].join(", "),
      },
    ];
  }
  return isAsWide(said, says)
    ? [{ kind: "restored", what: ALL_CHANGES }]
    : [{ kind: "widened", what: said.filter === says.filter ? "columns" : "rows" }];
}

interface Cover {
  /** Tells one row of the catalog from another, and from an earlier one of the same content. */
  readonly row: string;
  readonly xmin: string | undefined;
  readonly columns: Readonly<Record<string, string>> | null;
  readonly filter: string | null;
}

/** Returns the rows by which a publication holds a table: its name, its schema, or all tables. */
function covers(terms: PublicationTerms, { oid, schema }: ContractTable): readonly Cover[] {
  const whole = { columns: null, filter: null };
  return [
    ...(terms.every ? [{ row: "every", xmin: undefined, ...whole }] : []),
    ...terms.schemas
      .filter(({ name }) => name === schema)
      .map((entry) => ({ row: `schema ${entry.oid} ${entry.xmin}`, xmin: entry.xmin, ...whole })),
    ...terms.tables
      .filter((entry) => entry.oid === oid)
      .map(({ xmin, columns, filter }) => ({ row: `table ${xmin}`, xmin, columns, filter })),
  ];
}

/** Of several the server takes the one that says most; two that only the server could compare do not occur for one table. */
function widest(all: readonly Cover[]): Cover {
  return all.find(({ columns, filter }) => columns === null && filter === null) ?? (all[0] as Cover);
}

function isAsWide(wide: Cover, narrow: Cover): boolean {
  const rows = wide.filter === null || wide.filter === narrow.filter;
  return rows && missingColumns(narrow.columns, wide.columns) === undefined;
}

/** Names the columns that a list had and another has not; undefined: none. */
function missingColumns(before: Cover["columns"], now: Cover["columns"]): string | undefined {
  if (now === null) return undefined;
  if (before === null) return `columns other than ${Object.values(now).join(", ")}`;
  const gone = Object.keys(before).filter((number) => !(number in now));
  return gone.length === 0 ? undefined : gone.map((number) => before[number]).join(", ");
}

/** Noted only from right before our ALTER until its outcome is stored. */
function isOwn(xmin: string | undefined, { own }: PublicationTerms): boolean {
  return own !== undefined && xmin === own;
}
