import * as z from "zod/mini";
import { isPosition } from "../../change/position.ts";
import { DeadLetterFormatError } from "./redrive-errors.ts";
import type { RedriveRequest } from "./redrive-request.ts";

const deadLetter = z.looseObject({
  consumer: z.string().check(z.minLength(1)),
  topic: z.string().check(z.minLength(1)),
  partition: z.int().check(z.nonnegative()),
  position: z.string().check(z.refine(isPosition, "expected a position")),
});
const NAMES = ["consumer", "topic", "partition", "partitionKey", "sequenceNumber"] as const;

/**
 * The redrive of the one change that a dead letter tells of. All of topic, partition and position must be there: without
 * them a request would mean every key.
 * @throws DeadLetterFormatError where the message is no change's dead letter.
 */
export function deadLetterRequest(message: string, body: string): RedriveRequest {
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch {
    throw new DeadLetterFormatError(message, "", "it is not JSON");
  }
  const parsed = deadLetter.safeParse(value);
  if (parsed.success) {
    const { consumer, topic, partition, position } = parsed.data;
    return { tributary: "redrive", consumer, topic, partition, position };
  }
  if (isRecord(value))
    throw new DeadLetterFormatError(message, whereOf(value), "it is a record that could not be read");
  const [issue] = parsed.error.issues;
  const problem = `${issue?.path.map(String).join(".") || "its body"}: ${issue?.message}`;
  throw new DeadLetterFormatError(message, whereOf(value), problem);
}

function isRecord(value: unknown): boolean {
  return typeof value === "object" && value !== null && ("record" in value || "recordItems" in value);
}

/** The members that say where it is from, as far as it has them. */
function whereOf(value: unknown): string {
  if (typeof value !== "object" || value === null) return "";
  const facts = value as Readonly<Record<string, unknown>>;
  const shown = (fact: unknown) =>
    typeof fact === "number" || (typeof fact === "string" && fact.length <= 300);
  return NAMES.filter((name) => shown(facts[name]))
    .map((name) => `${name} ${facts[name]}`)
    .join(", ");
}
