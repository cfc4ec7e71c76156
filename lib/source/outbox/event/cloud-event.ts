import type { OutboxMembers } from "./outbox-members.ts";

/** https://www.rfc-editor.org/rfc/rfc3339#section-5.6 */
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)$/;

/**
 * The event as a CloudEvent, in the JSON event format. `partitionkey` is the attribute of the partitioning extension,
 * `traceparent` and `tracestate` those of distributed tracing (from the headers of that name); `aggregatetype` and
 * `headers` (all of them, as JSON text) are our own: an attribute's name has lower-case letters and digits only, and
 * its value is no object.
 * https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
 */
export function cloudEvent(members: OutboxMembers, source: string): string {
  const { id, aggregateType, aggregateId, type, payload, headers, createdAt } = members;
  const attributes = JSON.stringify({
    specversion: "1.0",
    id,
    source,
    type,
    subject: aggregateId,
    // Left out where it has no such form: year 10000, before Christ, infinite, or whatever a message says.
    time: TIME.test(createdAt) ? createdAt : undefined,
    datacontenttype: "application/json",
    partitionkey: aggregateId,
    aggregatetype: aggregateType,
    ...extensions(headers),
  });
  return `${attributes.slice(0, -1)},"data":${payload}}`;
}

function extensions(headers: string): Record<string, string> {
  const named = JSON.parse(headers) as Record<string, unknown>;
  if (Object.keys(named).length === 0) return {};
  const tracing = ["traceparent", "tracestate"].flatMap((name) => {
    const value = named[name];
    return typeof value === "string" && value !== "" ? [[name, value] as const] : [];
  });
  return { ...Object.fromEntries(tracing), headers };
}
