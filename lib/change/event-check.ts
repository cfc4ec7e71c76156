import type { ChangeEventJson } from "./event.ts";

/*
 * By hand, and not by a schema: this runs for every event of every consumer, and a schema library copies what it checks.
 */

const LSN = /^[0-9A-Fa-f]{1,8}\/[0-9A-Fa-f]{1,8}$/;
const POSITION = /^[0-9A-F]{24}[0-9]{10}$/;
const OPERATIONS = new Set<unknown>(["c", "u", "d", "r", "t", "m"]);
/** Largest numbers in the 8 hex digits and 10 decimal digits of a position. */
const MAX_EPOCH = 0xffff_ffff;
const MAX_ORDINAL = 9_999_999_999;

/** The place at which an event is wrong (empty: the event as a whole) and the value expected there; never the value found. */
export type EventFault = readonly [at: string, expected: string];

/**
 * Returns the fault of a value as a change event. Undefined where all is right that readers depend on; the rest of an
 * event is as capture wrote it.
 */
export function eventFault(value: unknown): EventFault | undefined {
  if (!isObject(value)) return ["", "an object"];
  const event = value as Unchecked<ChangeEventJson>;
  if (!OPERATIONS.has(event.op)) return ["op", "one of c, u, d, r, t, m"];
  if (!isRow(event.before)) return ["before", "an object or null"];
  if (!isRow(event.after)) return ["after", "an object or null"];
  if (!isList(event.unchanged)) return ["unchanged", "an array"];
  if (!isList(event.omitted)) return ["omitted", "an array"];
  if (!isList(event.jsonNull)) return ["jsonNull", "an array"];
  if (!isList(event.jsonNullBefore)) return ["jsonNullBefore", "an array"];
  const { message, source } = event;
  if (message !== undefined && !isMessage(message)) return ["message", "an object with prefix and content"];
  if (!isObject(source)) return ["source", "an object"];
  const { connector, schema, table, commitLsn, ordinal, epoch, key, after } = source as Unchecked<
    ChangeEventJson["source"]
  >;
  if (typeof connector !== "string") return ["source.connector", "a string"];
  if (typeof schema !== "string") return ["source.schema", "a string"];
  if (typeof table !== "string") return ["source.table", "a string"];
  if (!isList(key)) return ["source.key", "an array"];
  if (typeof commitLsn !== "string" || !LSN.test(commitLsn)) return ["source.commitLsn", "an LSN"];
  if (!isWhole(ordinal, MAX_ORDINAL)) return ["source.ordinal", "a whole number of at most 10 digits"];
  if (!isWhole(epoch, MAX_EPOCH)) return ["source.epoch", "a whole number of at most 32 bits"];
  if (after !== null && !(typeof after === "string" && POSITION.test(after)))
    return ["source.after", "a position or null"];
  return undefined;
}

type Unchecked<T> = { readonly [K in keyof T]?: unknown };

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Rows may have a column of any name, `__proto__` too: they are not looked into. */
function isRow(value: unknown): boolean {
  return value === null || value === undefined || isObject(value);
}

function isList(value: unknown): boolean {
  return value === undefined || Array.isArray(value);
}

function isMessage(value: unknown): boolean {
  if (!isObject(value)) return false;
  const { prefix, content } = value as Unchecked<NonNullable<ChangeEventJson["message"]>>;
  return typeof prefix === "string" && typeof content === "string";
}

function isWhole(value: unknown, most: number): boolean {
  return typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= most;
}
