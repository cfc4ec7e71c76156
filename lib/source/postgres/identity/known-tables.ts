import * as z from "zod";
import type { PositionText } from "../../../change/position.ts";
import type { Relation } from "../decode/pgoutput/messages.ts";

const keyColumn = z.object({
  /** `attnum`: it stays when the column is renamed. */
  number: z.int(),
  /** OID of its type. */
  type: z.int(),
  /** All names that it had, the latest last: the log tells the one of its time. */
  names: z.array(z.string()).min(1),
  /** With identity full: no column before it was ever dropped, or does not travel, so that its number is its place in the log. */
  inPlace: z.literal(true).optional(),
});

const stretch = z.object({
  /** The first position that it counts for. */
  from: z.string().regex(/^[0-9A-F]{24}[0-9]{10}$/),
  oid: z.int(),
  /** `d` default, `n` nothing, `f` full, `i` index. */
  identity: z.string(),
  /** The columns that tell a row from others, in the order of the columns: replica identity, or the primary key with identity full. */
  key: z.array(keyColumn),
  /** A sweep that began behind here puts right what old rows without the key do not tell. */
  sweptTo: z
    .string()
    .regex(/^[0-9A-F]{24}[0-9]{10}$/)
    .optional(),
});

/** Captured tables by the name that people write, each with what the name stood for: the latest last. */
export const knownTables = z.record(z.string(), z.array(stretch).min(1));

/** A column of a key. */
export type KeyColumn = Readonly<z.output<typeof keyColumn>>;
/** The table that a captured name stood for, and its key, from a position on. */
export interface TableStretch {
  readonly from: PositionText;
  readonly oid: number;
  readonly identity: string;
  readonly key: readonly KeyColumn[];
  readonly sweptTo?: PositionText | undefined;
}
/** The captured tables of a slot. */
export type KnownTables = Readonly<Record<string, readonly TableStretch[]>>;

/** `(tenant, id)`, or `none`. */
export function formatKey(key: readonly KeyColumn[]): string {
  return key.length === 0 ? "none" : `(${key.map(({ names }) => names.at(-1)).join(", ")})`;
}

/** Returns the texts of two keys of a table. Where their columns have the same names, the texts name the types or column numbers that differ. */
export function formatKeys(
  before: readonly KeyColumn[],
  now: readonly KeyColumn[],
): readonly [before: string, now: string] {
  const [one, other] = [formatKey(before), formatKey(now)];
  if (one !== other) return [one, other];
  const differs = (key: readonly KeyColumn[], than: readonly KeyColumn[]) =>
    key.map(({ names, number, type }, i) => {
      const here = type === than[i]?.type ? `column ${number}` : `type OID ${type}`;
      return `${names.at(-1)}: ${here}`;
    });
  return [`(${differs(before, now).join(", ")})`, `(${differs(now, before).join(", ")})`];
}

/** Compares two keys of one table: a renamed column is the same one. */
export function compareKeys(
  before: readonly KeyColumn[],
  now: readonly KeyColumn[],
): "same" | "renamed" | "other" {
  const same =
    before.length === now.length &&
    before.every(({ number, type }, i) => number === now[i]?.number && type === now[i]?.type);
  if (!same) return "other";
  return before.every(({ names }, i) => names.at(-1) === now[i]?.names.at(-1)) ? "same" : "renamed";
}

/** Returns true if rows of two tables have the same key texts: columns of the same names and types, in the same order. */
export function areAlike(one: readonly KeyColumn[], other: readonly KeyColumn[]): boolean {
  return (
    one.length === other.length &&
    one.every(({ names, type }, i) => names.at(-1) === other[i]?.names.at(-1) && type === other[i]?.type)
  );
}

/** The old columns, with the names that they have now too. */
export function withNames(before: readonly KeyColumn[], now: readonly KeyColumn[]): KeyColumn[] {
  return before.map((column, i) => {
    const name = now[i]?.names.at(-1) as string;
    const { inPlace: _, ...rest } = column;
    const names = [...column.names.filter((old) => old !== name), name];
    return { ...rest, names, ...(now[i]?.inPlace ? { inPlace: true } : {}) };
  });
}

/**
 * A key with the name that a column of it has in the log, and had for a time between two looks at the catalog: the one name of
 * the log that no column has now is the one column's that is not found. Undefined: there is none, or it cannot be told.
 */
export function withNameBetween(
  key: readonly KeyColumn[],
  logged: readonly { readonly name: string; readonly type: number }[],
  present: readonly string[],
): KeyColumn[] | undefined {
  const isLogged = (name: string) => logged.some((column) => column.name === name);
  const lost = key.filter(({ names }) => !names.some(isLogged));
  const strange = logged.filter(
    ({ name }) => !present.includes(name) && !key.some(({ names }) => names.includes(name)),
  );
  const [column, other] = [lost[0], strange[0]];
  if (lost.length !== 1 || strange.length !== 1 || !column || column.type !== other?.type) return undefined;
  const names = [...column.names.slice(0, -1), other.name, ...column.names.slice(-1)];
  return key.map((one) => (one === column ? { ...one, names } : one));
}

/**
 * Indexes of a key's columns among those that the log tells, ascending; undefined where one is not among them. Of several names
 * that it had (its latest may have been another column's at the time) it is the one that the log has in the identity.
 */
export function findKey(
  key: readonly KeyColumn[],
  { identity, columns }: Pick<Relation, "identity" | "columns">,
): number[] | undefined {
  const found = key.map(({ number, names, inPlace }) => {
    const places = names
      .map((name) => columns.findIndex((column) => column.name === name))
      .filter((place) => place !== -1);
    const sure =
      identity === "full"
        ? places.find((place) => inPlace && place === number - 1)
        : places.findLast((place) => columns[place]?.key);
    return sure ?? places.at(-1) ?? -1;
  });
  return found.includes(-1) ? undefined : found.sort((a, b) => a - b);
}
