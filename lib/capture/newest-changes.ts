import type { NewestChange } from "../state/capture-report.ts";
import type { OfferedChange } from "../stream/metrics.ts";

/** Topics of which all that is remembered is reported, at most: those that changed last. A report stays small. */
export const MAX_TOPICS = 40;
/** Of each topic one change is kept for each of these ages, in milliseconds, beside the newest. */
const AGES_MS = [10_000, 60_000, 600_000, 3_600_000];
/** A change that a consumer lacks for so long makes a pipeline unhealthy, in milliseconds. */
export const LATE_MS = 600_000;
/** Changes of one partition that are to become old are at least so far apart, in milliseconds. */
const APART_MS = 150_000;
/** Old changes that are reported, and partitions that are watched, at most. */
export const MAX_LATE = 1_000;
const MAX_WATCHED = 10_000;

/**
 * Remembers of each topic the newest change that the stream has, and a few before it: a reader compares them with the checkpoints
 * of a consumer, and knows since when it is behind. The further back, the fewer. Beside those, of each partition one change that is
 * older than ten minutes: a consumer that stands in one partition, or in a topic that others push out, is not to look as if it
 * were up to date.
 */
export class NewestChanges {
  readonly #changes = new Map<string, readonly NewestChange[]>();
  /** Changes that were taken and may not be stored yet. */
  readonly #offered = new Map<string, NewestChange>();
  /** By topic and partition, the newest first: one that is late, and a few that become so. */
  readonly #watched = new Map<string, Map<number, readonly NewestChange[]>>();
  #watchedPartitions = 0;
  #now = 0;

  /** Takes what an earlier task knew, of topics that this one has not heard of. */
  recall(known: Readonly<Record<string, readonly NewestChange[]>>): void {
    for (const [topic, changes] of Object.entries(known)) {
      if (this.#changes.has(topic)) continue;
      const [newest] = changes;
      if (newest) this.#changes.set(topic, thinned(changes, newest.at));
      for (const change of changes.toReversed()) this.#watch(topic, change, newest?.at ?? 0);
    }
  }

  /** Takes the last changes that were offered; `oldestMs`: age of the oldest message that is not acknowledged, 0 where all are. */
  take(newest: ReadonlyMap<string, OfferedChange>, oldestMs: number, now: number): void {
    this.#now = now;
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
    const found = new Map(topics.slice(0, MAX_TOPICS).map(([topic, changes]) => [topic, [...changes]]));
    for (const [topic, change] of this.#late()) {
      const own = found.get(topic) ?? [];
      if (own.some(({ position }) => position === change.position)) continue;
      found.set(topic, [...own, change]);
    }
    return Object.fromEntries(
      [...found].map(([topic, changes]) => [topic, changes.sort((a, b) => b.at - a.at)]),
    );
  }

  /** One late change of each topic, then the others, as many as are reported. */
  #late(): readonly (readonly [string, NewestChange])[] {
    const byTopic = [...this.#watched].map(([topic, partitions]) =>
      [...partitions.values()]
        .flatMap((changes) => changes.find(({ at }) => this.#now - at >= LATE_MS) ?? [])
        .map((change) => [topic, change] as const),
    );
    return [
      ...byTopic.flatMap(([first]) => (first ? [first] : [])),
      ...byTopic.flatMap((own) => own.slice(1)),
    ].slice(0, MAX_LATE);
  }

  #add(topic: string, change: NewestChange, now: number): void {
    this.#offered.delete(topic);
    this.#changes.set(topic, thinned([change, ...(this.#changes.get(topic) ?? [])], now));
    this.#watch(topic, change, now);
  }

  #watch(topic: string, change: NewestChange, now: number): void {
    const partitions = this.#watched.get(topic) ?? new Map<number, readonly NewestChange[]>();
    const known = partitions.get(change.partition);
    if (!known && this.#watchedPartitions >= MAX_WATCHED && partitions.size > 0) return;
    const [last] = known ?? [];
    if (last && change.at - last.at < APART_MS) return;
    if (!known) this.#watchedPartitions++;
    const changes = [change, ...(known ?? [])];
    // What stands behind one that is late says nothing more.
    const late = changes.findIndex(({ at }) => now - at >= LATE_MS);
    partitions.set(change.partition, late < 0 ? changes : changes.slice(0, late + 1));
    this.#watched.set(topic, partitions);
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
