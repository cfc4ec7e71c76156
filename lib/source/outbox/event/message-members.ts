import { jsonMembers } from "../../../change/json-members.ts";
import { outboxProblem } from "../../../publish/event.ts";
import type { OutboxMembers } from "./outbox-members.ts";

/** An event that was caught and cannot be told as one: `problem` names fields, never values. */
export class MalformedEvent extends Error {
  readonly problem: string;
  constructor(problem: string) {
    super(problem);
    this.problem = problem;
  }
}

/**
 * Reads the content of an outbox message: JSON, an object with the members of an event. `id`, `headers` and
 * `createdAt` may be missing.
 * @throws MalformedEvent
 */
export function messageMembers(
  content: Uint8Array,
  missing: { readonly id: string; readonly createdAt: string },
): OutboxMembers {
  const text = decode(content);
  const values = parse(text);
  const { id, aggregateType, aggregateId, type, createdAt } = values;
  const problem =
    outboxProblem({ ...values, id: undefined }) ??
    textProblem("id", id) ??
    textProblem("createdAt", createdAt);
  if (problem !== undefined) throw new MalformedEvent(problem);
  const compact = withoutBlanks(text);
  // A name that comes twice counts as JSON.parse takes it: the last one.
  const texts = new Map(
    jsonMembers(compact, 0).map(({ name, valueStart, end }) => [name, compact.slice(valueStart, end)]),
  );
  return {
    id: (id as string | undefined) ?? missing.id,
    aggregateType: aggregateType as string,
    aggregateId: aggregateId as string,
    type: type as string,
    payload: texts.get("payload") as string,
    headers: texts.get("headers") ?? "{}",
    createdAt: (createdAt as string | undefined) ?? missing.createdAt,
  };
}

function textProblem(member: string, value: unknown): string | undefined {
  const right = value === undefined || (typeof value === "string" && value !== "");
  return right ? undefined : `${member} must be a text`;
}

function decode(content: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(content);
  } catch {
    throw new MalformedEvent("the content is not UTF-8");
  }
}

function parse(text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new MalformedEvent("the content is not JSON");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new MalformedEvent("the content is not a JSON object");
  return value as Record<string, unknown>;
}

/** The same JSON without white space between its tokens. */
export function withoutBlanks(json: string): string {
  if (!/[ \t\r\n]/.test(json)) return json;
  let out = "";
  let from = 0;
  for (let i = 0; i < json.length; i++) {
    const c = json[i];
    if (c === '"') {
      for (i++; json[i] !== '"'; i++) if (json[i] === "\\") i++;
    } else if (c === " " || c === "\n" || c === "\r" || c === "\t") {
      out += json.slice(from, i);
      from = i + 1;
    }
  }
  return out + json.slice(from);
}
