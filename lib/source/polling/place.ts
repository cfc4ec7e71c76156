import * as z from "zod";

/** A clock of the server, and by table the largest value seen by then: what is assigned later is larger. */
const mark = z.object({ at: z.number(), values: z.record(z.string(), z.string()) });

/** Start of a look. */
const lookStart = z.object({
  /** Number of the last batch. */
  number: z.int(),
  /** Transactions below have been given (64 bits); null at the very first: every row there is. */
  from: z.string().nullable(),
  /** Rows of transactions from `from` on have values from here on, milliseconds since 1970; null: nobody knows. */
  low: z.number().nullable(),
  /** The same for numbers, by table. */
  lowValues: z.record(z.string(), z.string()),
  marks: z.array(mark),
  /**
   * Up to this transaction all rows are looked at: of those that are older than all ids, the very first look takes a few for
   * new ones, and leaves them. Empty: to be set when the next look begins.
   */
  fullUntil: z.string().nullable(),
});

/** A look under way, from page to page. */
export const look = lookStart.extend({
  under: z
    .object({
      /** Up to which transaction it gives. */
      to: z.string(),
      /** All rows are looked at, whatever their column says. */
      full: z.boolean(),
      /** Tables that are still to be read, the first perhaps in part. */
      tables: z.array(z.string()),
      /** Column and key of the last row of the first table that was given. */
      last: z.array(z.string()).nullable(),
      /** Start of the look after this one. */
      next: lookStart.omit({ number: true }),
    })
    .nullable(),
});

/** The bounds of a batch: rows of one table behind `last` and up to `upTo`. */
export const batchBounds = z.object({
  number: z.int(),
  table: z.string(),
  from: z.string().nullable(),
  to: z.string(),
  full: z.boolean(),
  low: z.number().nullable(),
  lowValue: z.string().nullable(),
  last: z.array(z.string()).nullable(),
  upTo: z.array(z.string()),
  /** Time at which the look began at the server, microseconds since 1970. */
  atUs: z.string(),
});

/** The bounds of a batch of deletes: the rows themselves, since they cannot be asked for again. */
export const deleteBounds = z.object({
  number: z.int(),
  gone: z.object({ table: z.string(), keys: z.array(z.array(z.string()).readonly()).readonly() }),
  /** Time at which they were found gone, microseconds since 1970. */
  atUs: z.string(),
});

/** Start of a look. */
export type LookStart = z.output<typeof lookStart>;
/** A look under way, from page to page. */
export type Look = z.output<typeof look>;
/** A clock of the server, with the values seen by then. */
export type Mark = z.output<typeof mark>;
/** Between which rows a batch of a look lies. */
export type BatchBounds = z.output<typeof batchBounds>;
/** The keys of a batch of deletes. */
export type DeleteBounds = z.input<typeof deleteBounds>;

const MARKS = 64;

/** With one more; where there are many, every second of the older ones goes. */
export function withMark(marks: readonly Mark[], mark: Mark): Mark[] {
  const all = [...marks, mark];
  return all.length <= MARKS ? all : all.filter((_, i) => i % 2 === 0 || i === all.length - 1);
}

/** Returns the values that were known when a transaction that began at `startMs` had assigned nothing yet. */
export function valuesBefore(marks: readonly Mark[], startMs: number): Readonly<Record<string, string>> {
  return marks.findLast(({ at }) => at <= startMs)?.values ?? {};
}
