/** Share of the stream's retention that an unapplied change has used up. */
export interface RetentionLeft {
  readonly retentionHours: number;
  /** When the oldest change was written that is not applied, as far as is known; milliseconds since 1970 UTC. */
  readonly oldestAt: number;
  readonly ageMs: number;
  /** Until the stream drops it; 0 where it is over. */
  readonly leftMs: number;
  /** 0 to 100, and 100 where it is over. */
  readonly usedPercent: number;
}

/**
 * Returns what is left of the stream's retention for a consumer that applies nothing.
 * `oldestAt`: when the oldest change that it lacks was written, or when it was paused, whichever was first.
 */
export function retentionLeft(oldestAt: number, retentionHours: number, now: number): RetentionLeft {
  const retentionMs = retentionHours * 3_600_000;
  // Clocks differ: a pause by one that is ahead has used nothing yet.
  const ageMs = Math.max(0, now - oldestAt);
  return {
    ...{ retentionHours, oldestAt, ageMs },
    leftMs: Math.max(0, retentionMs - ageMs),
    usedPercent: Math.min(100, (100 * ageMs) / retentionMs),
  };
}
