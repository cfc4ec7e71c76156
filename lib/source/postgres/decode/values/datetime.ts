import { type ValueEncoder, ValueMismatch } from "./encoder.ts";

/*
 * Dates and times as PostgreSQL prints them with DateStyle ISO, TimeZone UTC and IntervalStyle iso_8601, made
 * ISO 8601 where they are not: the digits stay. `infinity`, `-infinity` and the suffix ` BC` stay too.
 * https://www.postgresql.org/docs/current/datatype-datetime.html#DATATYPE-DATETIME-OUTPUT
 */

const DATE = /^\d{4,7}-\d\d-\d\d(?: BC)?$/;
const TIME = /^\d\d:\d\d:\d\d(?:\.\d{1,6})?$/;
const TIME_ZONED = /^\d\d:\d\d:\d\d(?:\.\d{1,6})?[+-]\d\d(?::\d\d(?::\d\d)?)?$/;
const TIMESTAMP = /^\d{4,6}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})?(?: BC)?$/;
const TIMESTAMP_UTC = /^\d{4,6}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})?\+00(?: BC)?$/;
const INTERVAL =
  /^P(?=[-\dT])(?:-?\d+Y)?(?:-?\d+M)?(?:-?\d+D)?(?:T(?:-?\d+H)?(?:-?\d+M)?(?:-?\d+(?:\.\d{1,6})?S)?)?$/;
const INFINITE = /^-?infinity$/;

/** `2026-11-23`, `0044-03-15 BC`. */
export const encodeDate: ValueEncoder = (buffer, start, end) => {
  const text = buffer.toString("latin1", start, end);
  if (DATE.test(text) || INFINITE.test(text)) return `"${text}"`;
  throw new ValueMismatch("a date in DateStyle ISO");
};

/** `10:15:30.123456`, `24:00:00`. */
export const encodeTime: ValueEncoder = (buffer, start, end) => {
  const text = buffer.toString("latin1", start, end);
  if (TIME.test(text)) return `"${text}"`;
  throw new ValueMismatch("a time of day");
};

/** `10:15:30.1+02`, `10:15:30-05:30`: the zone is part of the value. */
export const encodeTimeZoned: ValueEncoder = (buffer, start, end) => {
  const text = buffer.toString("latin1", start, end);
  if (TIME_ZONED.test(text)) return `"${text}"`;
  throw new ValueMismatch("a time of day with its zone");
};

/** `2026-11-23 10:15:30.1` → `2026-11-23T10:15:30.1`. */
export const encodeTimestamp: ValueEncoder = (buffer, start, end) => {
  const text = buffer.toString("latin1", start, end);
  if (TIMESTAMP.test(text)) return `"${text.replace(" ", "T")}"`;
  if (INFINITE.test(text)) return `"${text}"`;
  throw new ValueMismatch("a timestamp in DateStyle ISO");
};

/** `2026-11-23 10:15:30.1+00` → `2026-11-23T10:15:30.1Z`. */
export const encodeTimestampZoned: ValueEncoder = (buffer, start, end) => {
  const text = buffer.toString("latin1", start, end);
  if (TIMESTAMP_UTC.test(text)) return `"${text.replace(" ", "T").replace("+00", "Z")}"`;
  if (INFINITE.test(text)) return `"${text}"`;
  throw new ValueMismatch("a timestamp in DateStyle ISO and TimeZone UTC");
};

/** `P1Y2M3DT4H5M6.789S`, `PT-0.5S`. */
export const encodeInterval: ValueEncoder = (buffer, start, end) => {
  const text = buffer.toString("latin1", start, end);
  if (INTERVAL.test(text) || INFINITE.test(text)) return `"${text}"`;
  throw new ValueMismatch("an interval in IntervalStyle iso_8601");
};
