import type { NewestChange } from "../state/capture-report.ts";
import type { OfferedChange } from "../stream/metrics.ts";

/** Topics that are remembered, at most: a report stays small. */
export const MAX_TOPICS = 40;
/** Of each topic one change is kept for each of these ages, in milliseconds, beside the newest. */
const AGES_MS = [10_000, 60_000, 600_000, 3_600_000];

/**
 * Remembers of each topic the newest change that the stream has, and a few before it: a reader compares them with the checkpoints
 * of a consumer, and knows since when it is behind. The further back, the fewer.
 */
export class NewestChanges {
  readonly #changes = new Map<string, readonly NewestChange[]>();
  /** Changes that were taken and may not be stored yet. */
  readonly #offered = new Map<string, NewestChange>();

  /** Takes what an earlier task knew, of topics that this one has not heard of. */
  recall(known: Readonly<Record<string, readonly NewestChange[]>>): void {
    for (const [topic, changes] of Object.entries(known))
      if (!this.#changes.has(topic)) this.#changes.set(topic, changes);
  }

  /** Takes the last changes that were offered; `oldestMs`: age of the oldest message that is not acknowledged, 0 where all are. */
  take(newest: ReadonlyMap<string, OfferedChange>, oldestMs: number, now: number): void {
    for (const [topic, { partition, position }] of newest) {
      const waiting = this.#offered.get(topic);
      if (waiting && oldestMs < now - waiting.at) this.#add(topic, waiting, now);
      if (this.#offered.has(topic) || this.#changes.get(topic)?.[0]?.position === position) continue;
      const change = { partition, position, at: now };
      if (oldestMs === 0) this.#add(topic, change, now);
      else this.#offered.set(topic, change);
    }
  }

  /** By topic, the newest change first. */
  get all(): Readonly<Record<string, NewestChange[]>> {
    const topics = [...this.#changes].sort(([, [a]], [, [b]]) => (b?.at ?? 0) - (a?.at ?? 0));
    return Object.fromEntries(topics.slice(0, MAX_TOPICS).map(([topic, changes]) => [topic, [...changes]]));
  }

  #add(topic: string, change: NewestChange, now: number): void {
    this.#offered.delete(topic);
    this.#changes.set(topic, thinned([change, ...(this.#changes.get(topic) ?? [])], now));
  }
}

/** Keeps the newest, and of each age the oldest: it grows into the next one. */
function thinned(changes: readonly NewestChange[], now: number): readonly NewestChange[] {
  const ageOf = ({ at }: NewestChange) => AGES_MS.filter((age) => now - at >= age).length;
  return changes.filter((change, i) => {
    const older = changes[i + 1];
    return i === 0 || older === undefined || ageOf(older) !== ageOf(change);
  });
}
