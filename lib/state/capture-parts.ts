import { randomBytes } from "node:crypto";
import type { CapturePlace } from "./capture-item.ts";
import { persistentTable } from "./persistent-table.ts";
import { capturePartKey } from "./state-key.ts";

/*
 * Attributes of the capture item that grow with the number of tables. The item is rewritten at each beat, every few seconds,
 * and DynamoDB charges a write for the whole item: 85 units with the settings of 1,000 tables. So a long text stands in items
 * of its own, which are written once and never changed, and the attribute names them: `~<version>/<how many>`. A task of an
 * older version cannot read that, and stops: it must not go on as if nothing were stored.
 */

/** Attributes of the item that may be long. */
export type LongAttribute = "settings" | "topics" | "arriving" | "terms" | "leaves" | "tables";

/** Characters of such an attribute that the item itself holds, at most. */
const INLINE_CHARACTERS = 1024;
/** DynamoDB takes 400 KB. */
const PART_BYTES = 300_000;
const NAMED = /^~([\w-]+)\/(\d+)$/;

/** Stores a text, and returns what the item is to hold of it: the text itself, if it is short. */
export async function storeLong(
  place: CapturePlace,
  generation: number,
  attribute: LongAttribute,
  text: string,
): Promise<string> {
  if (text.length <= INLINE_CHARACTERS) return text;
  const version = randomBytes(9).toString("base64url");
  const bytes = Buffer.from(text);
  const count = Math.ceil(bytes.length / PART_BYTES);
  for (let part = 0; part < count; part++) {
    await persistentTable(place).put(
      capturePartKey(place.pipeline, place.slot, attribute, `${version}/${part}`),
      {
        generation: { N: String(generation) },
        text: { B: bytes.subarray(part * PART_BYTES, (part + 1) * PART_BYTES) },
      },
    );
  }
  return `~${version}/${count}`;
}

/** Returns the text of what the item holds; undefined where it has been replaced since. */
export async function readLong(
  place: CapturePlace,
  attribute: LongAttribute,
  held: string,
): Promise<string | undefined> {
  const [, version, count] = NAMED.exec(held) ?? [];
  if (version === undefined) return held;
  const parts = new Map<string, Uint8Array>();
  const { sk: prefix } = capturePartKey(place.pipeline, place.slot, attribute, "");
  for await (const { sk, text } of partsOf(place, attribute, `${version}/`))
    parts.set(sk.slice(prefix.length), text);
  const all = Array.from({ length: Number(count) }, (_, part) => parts.get(`${version}/${part}`) ?? []);
  return parts.size < all.length ? undefined : Buffer.concat(all.map((part) => Buffer.from(part))).toString();
}

/** Removes what the item names no more. What a task of a greater generation has written stays. */
export async function removeOthers(
  place: CapturePlace,
  generation: number,
  attribute: LongAttribute,
  held: string | undefined,
): Promise<void> {
  const [, version] = NAMED.exec(held ?? "") ?? [];
  const { pk, sk: prefix } = capturePartKey(place.pipeline, place.slot, attribute, "");
  for await (const { sk } of partsOf(place, attribute, "")) {
    if (version !== undefined && sk.startsWith(`${prefix}${version}/`)) continue;
    await persistentTable(place).delete(
      { pk, sk },
      {
        ConditionExpression: "#generation <= :generation",
        ExpressionAttributeNames: { "#generation": "generation" },
        ExpressionAttributeValues: { ":generation": { N: String(generation) } },
      },
    );
  }
}

async function* partsOf(
  place: CapturePlace,
  attribute: LongAttribute,
  part: string,
): AsyncGenerator<{ readonly sk: string; readonly text: Uint8Array }> {
  const key = capturePartKey(place.pipeline, place.slot, attribute, part);
  for await (const { sk, text } of persistentTable(place).query(key))
    yield { sk: sk?.S ?? "", text: text?.B ?? new Uint8Array() };
}
