import type { ChangeEventJson } from "../../../lib/change/event.ts";
import type { PositionText } from "../../../lib/change/position.ts";
import { parseRecord, positionOf } from "../../../lib/change/record.ts";
import type { Entry } from "../../../lib/stream/partition-queue.ts";

/** A stream as a reader sees it: what was stored of each partition key, in the order it was stored. */
export class KinesisModel {
  readonly #stored = new Map<string, ChangeEventJson[]>();
  readonly #positions = new Set<string>();

  store(entry: Entry): void {
    const record = parseRecord(entry.data);
    if (record.kind !== "events") throw new Error("the writer writes events");
    const { partitionKey } = entry.queue;
    if (`${record.topic}/${record.partition}` !== partitionKey) throw new Error(`record in ${partitionKey}`);
    const stored = this.#stored.get(partitionKey) ?? [];
    stored.push(...record.events);
    this.#stored.set(partitionKey, stored);
    for (const event of record.events) this.#positions.add(`${partitionKey} ${positionOf(event)}`);
  }

  has(partitionKey: string, position: PositionText): boolean {
    return this.#positions.has(`${partitionKey} ${position}`);
  }

  /** What takes effect at a consumer that judges event by event (rule 7). Throws at a gap. */
  effects(partitionKey: string): PositionText[] {
    const effects: PositionText[] = [];
    let mark = "";
    for (const event of this.#stored.get(partitionKey) ?? []) {
      const position = positionOf(event);
      const { after } = event.source;
      if (position <= mark) continue;
      if (after !== null && after > mark) throw new Error(`gap in ${partitionKey}: ${after} after ${mark}`);
      effects.push(position);
      mark = position;
    }
    return effects;
  }
}
