import { type JsonElement, jsonElements, jsonMembers } from "./json-members.ts";
import { decodeText, gunzipEvents } from "./record.ts";

/**
 * The texts of the events of a record that `parseRecord` reads, byte for byte as they were written: what is kept of a
 * change for later has every digit, every duplicate member and any depth.
 */
export function eventTexts(data: Uint8Array): string[] {
  const text = decodeText(data, "its data");
  const members = new Map(jsonMembers(text, text.indexOf("{")).map((member) => [member.name, member]));
  if (members.has("op")) return [text];
  const events = members.get("events");
  if (members.has("claim") || !events) return [];
  const value = text.slice(events.valueStart, events.end);
  if (!members.has("encoding")) return slices(value);
  return slices(decodeText(gunzipEvents(JSON.parse(value) as string), "events"));
}

function slices(array: string): string[] {
  const sliceOf = ({ valueStart, end }: JsonElement) => array.slice(valueStart, end);
  return jsonElements(array, array.indexOf("[")).map(sliceOf);
}

/** The text of an event as a record of its own: what a packed record says around it stands in its `source`. */
export function asUnpacked(
  event: string,
  header: { readonly topic: string; readonly partition: number; readonly writer: number },
): string {
  const source = jsonMembers(event, event.indexOf("{")).findLast(({ name }) => name === "source");
  if (!source) throw new RangeError("an event without source");
  const { topic, partition, writer } = header;
  // Names that come twice count as the last one says, so what stands here holds.
  const facts = JSON.stringify({ topic, partition, writer }).slice(1, -1);
  const end = source.end - 1;
  return `${event.slice(0, end)},${facts}${event.slice(end)}`;
}
