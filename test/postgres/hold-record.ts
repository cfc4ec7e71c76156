import type { Hold, HoldRecord, HoldSegment } from "../../lib/source/postgres/hold/hold-record.ts";

/** The holds of a pipeline in memory, and the operator who wants them released. */
export class MemoryHolds implements HoldRecord {
  readonly holds = new Map<string, Hold>();
  readonly segments = new Map<string, HoldSegment>();
  readonly wanted = new Set<string>();

  async list() {
    return [...this.holds.values()].map((hold) => ({ ...hold, released: this.wanted.has(hold.topic) }));
  }

  async writeSegment(topic: string, index: number, segment: HoldSegment): Promise<void> {
    this.segments.set(`${topic} ${index}`, segment);
  }

  async readSegment(topic: string, index: number): Promise<HoldSegment> {
    const segment = this.segments.get(`${topic} ${index}`);
    if (!segment) throw new Error(`no segment ${index} of ${topic}`);
    return segment;
  }

  async write(hold: Hold, refused = false): Promise<void> {
    this.holds.set(hold.topic, hold);
    if (refused) this.wanted.delete(hold.topic);
  }

  async end({ topic, next }: Hold): Promise<void> {
    this.holds.delete(topic);
    this.wanted.delete(topic);
    for (let index = 0; index < next; index++) this.segments.delete(`${topic} ${index}`);
  }
}
