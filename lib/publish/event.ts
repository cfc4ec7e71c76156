import { defineError } from "../change/tributary-error.ts";

/**
 * An event that an application publishes: something happened to one aggregate (an order, a customer).
 *
 * @example
 * const event: OutboxEvent = {
 *   aggregateType: "order", aggregateId: "17", type: "OrderPlaced", payload: { total: "19.90" },
 * };
 */
export interface OutboxEvent {
  /** Chooses the topic, `<prefix>.outbox.<aggregateType>`: 1 to 64 letters, digits, `.`, `_` or `-`. */
  readonly aggregateType: string;
  /** Chooses the partition: events of one aggregate keep their order. 1 to 512 characters. */
  readonly aggregateId: string;
  /** The kind of event, as `OrderPlaced`: 1 to 255 characters. */
  readonly type: string;
  /** Anything that JSON can hold. */
  readonly payload: unknown;
  /** Headers that travel beside the payload, as `{ traceparent: "00-…" }`. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Names the event for ever, a UUID; default: a new one. */
  readonly id?: string;
}

/** An event that an application gave cannot be one. `problem` names fields, never values. */
export class OutboxEventError extends defineError("OUTBOX_EVENT", "stop").from((problem: string) => ({
  message: `not an outbox event: ${problem}`,
  remedy: "Correct what the application publishes; nothing was written.",
})) {}

/** The form of an aggregate type; the table's check constraint says the same. */
export const AGGREGATE_TYPE = "^[A-Za-z0-9_.-]{1,64}$";
const aggregateType = new RegExp(AGGREGATE_TYPE);
const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** Tells whether a text has more characters, as the table's constraints count them: a character outside the plane 0 is one. */
function isLonger(text: string, max: number): boolean {
  return text.length > max && (text.length > 2 * max || [...text].length > max);
}

/** Returns the problem of an event's members, or undefined. Names fields, never values. */
export function outboxProblem(event: { readonly [member: string]: unknown }): string | undefined {
  const text = (member: string, max: number) => {
    const value = event[member];
    const right = typeof value === "string" && value !== "" && !isLonger(value, max) && !value.includes("\0");
    return right ? undefined : `${member} must be a text of 1 to ${max} characters`;
  };
  if (typeof event.aggregateType !== "string" || !aggregateType.test(event.aggregateType))
    return `aggregateType must be 1 to 64 letters, digits, ".", "_" or "-"`;
  if (event.payload === undefined) return "payload is missing; write null where there is nothing to say";
  if (event.id !== undefined && (typeof event.id !== "string" || !uuid.test(event.id)))
    return "id must be a UUID";
  const { headers = {} } = event;
  if (typeof headers !== "object" || headers === null || Array.isArray(headers))
    return "headers must be an object";
  return text("aggregateId", 512) ?? text("type", 255);
}
