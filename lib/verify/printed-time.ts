/*
 * Dates and times in one form, however a server's settings or a driver's objects show them. PostgreSQL prints them in the
 * DateStyle ISO, which is its default; TimeZone and IntervalStyle may be any.
 */

/** `2026-11-23 12:15:30.100+02` → `2026-11-23T10:15:30.1`. */
export function timestampZonedText(value: unknown): string {
  const text = textOf(value);
  const zoned =
    /^(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)(\.\d+)?([+-])(\d\d)(?::?(\d\d)(?::?(\d\d))?)?$/.exec(
      text,
    );
  if (!zoned) return timestampText(text);
  const [year, month, day, hour, minute, second] = zoned.slice(1, 7).map(Number) as number[];
  const [hours = 0, minutes = 0, seconds = 0] = zoned.slice(9, 12).map((part) => Number(part ?? 0));
  const offset = (zoned[8] === "-" ? -1 : 1) * (hours * 3600 + minutes * 60 + seconds);
  if (offset === 0) return timestampText(text);
  const time = new Date(0);
  time.setUTCFullYear(year as number, (month as number) - 1, day);
  time.setUTCHours(hour as number, minute, (second as number) - offset);
  const year0 = time.getUTCFullYear();
  // Beyond the years that both write alike: as it stands.
  if (!(year0 >= 1 && year0 <= 9999)) return text;
  return timestampText(time.toISOString().slice(0, 19) + (zoned[7] ?? ""));
}

/** `2026-11-23 10:15:30.100` → `2026-11-23T10:15:30.1`. */
export function timestampText(value: unknown): string {
  return textOf(value)
    .replace(/ (?=\d)/, "T")
    .replace(/(?:Z|\+00(?::?00)?)(?= BC$|$)/, "")
    .replace(/(\.\d*?)0+(?= BC$|$)/, "$1")
    .replace(/\.(?= BC$|$)/, "");
}

/** A driver makes of a date the midnight where it runs. */
export function dateText(value: unknown): string {
  if (!isTime(value)) return textOf(value);
  const two = (n: number) => String(n).padStart(2, "0");
  const year = value.getFullYear();
  if (year < 1) return textOf(value);
  return `${String(year).padStart(4, "0")}-${two(value.getMonth() + 1)}-${two(value.getDate())}`;
}

const ISO_INTERVAL =
  /^P(?:(-?\d+)Y)?(?:(-?\d+)M)?(?:(-?\d+)D)?(?:T(?:(-?\d+)H)?(?:(-?\d+)M)?(?:(-?)(\d+)(?:\.(\d{1,6}))?S)?)?$/;
const POSTGRES_INTERVAL =
  /^(?:([+-]?\d+) years? ?)?(?:([+-]?\d+) mons? ?)?(?:([+-]?\d+) days? ?)?(?:([+-]?)(\d+):(\d\d):(\d\d)(?:\.(\d{1,6}))?)?$/;

/** Months, days and microseconds, which PostgreSQL keeps apart: of `P1DT2H` and of `1 day 02:00:00`. */
export function intervalText(value: unknown): string {
  const text = textOf(value);
  const iso = ISO_INTERVAL.exec(text);
  if (iso) {
    const [, years, months, days, hours, minutes, sign, seconds, fraction] = iso;
    const whole = big(hours) * 3600n + big(minutes) * 60n;
    return parts(years, months, days, whole * 1_000_000n + micros(sign, big(seconds), fraction));
  }
  const plain = text === "" ? null : POSTGRES_INTERVAL.exec(text);
  if (!plain) return text;
  const [, years, months, days, sign, hours, minutes, seconds, fraction] = plain;
  const whole = big(hours) * 3600n + big(minutes) * 60n + big(seconds);
  return parts(years, months, days, micros(sign, whole, fraction));
}

function parts(
  years: string | undefined,
  months: string | undefined,
  days: string | undefined,
  time: bigint,
): string {
  return `${big(years) * 12n + big(months)} ${big(days)} ${time}`;
}

function micros(sign: string | undefined, seconds: bigint, fraction: string | undefined): bigint {
  const all = seconds * 1_000_000n + big(fraction?.padEnd(6, "0"));
  return sign === "-" ? -all : all;
}

function big(digits: string | undefined): bigint {
  return BigInt(digits?.replace("+", "") ?? 0);
}

function isTime(value: unknown): value is Date {
  return value instanceof Date && !Number.isNaN(value.getTime());
}

/** Drivers make objects of times and intervals, and a number of what is infinite. */
function textOf(value: unknown): string {
  if (isTime(value)) return value.toISOString();
  if (value === Number.POSITIVE_INFINITY) return "infinity";
  if (value === Number.NEGATIVE_INFINITY) return "-infinity";
  const object = typeof value === "object" ? (value as { toISOString?: unknown } | null) : null;
  if (!(value instanceof Date) && typeof object?.toISOString === "function")
    return String(object.toISOString());
  return String(value);
}
