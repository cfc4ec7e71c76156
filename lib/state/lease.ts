import type { ConfigurationProblem } from "../change/tributary-error.ts";

/** After this silence of its owner the capture lease is taken over. All who may take it must agree on it. */
export const DEFAULT_LEASE_MS = 15_000;

/** Reads `TRIBUTARY_LEASE_MS`: milliseconds from 100 up; left out, the default. */
export function leaseFromEnvironment(environment: Readonly<Record<string, string | undefined>>): {
  readonly leaseMs: number;
  readonly problem?: ConfigurationProblem;
} {
  const lease = environment.TRIBUTARY_LEASE_MS;
  if (lease === undefined) return { leaseMs: DEFAULT_LEASE_MS };
  if (/^[1-9]\d{2,6}$/.test(lease)) return { leaseMs: Number(lease) };
  const remedy = `write milliseconds from 100 up, or leave it out for ${DEFAULT_LEASE_MS}`;
  return { leaseMs: DEFAULT_LEASE_MS, problem: { path: "TRIBUTARY_LEASE_MS", value: lease, remedy } };
}

/** A point in time by two clocks. */
export interface Moment {
  readonly monotonic: number;
  readonly wall: number;
}

/** Now. */
export function moment(): Moment {
  return { monotonic: performance.now(), wall: Date.now() };
}

/**
 * Returns the age of a moment in milliseconds, at least: by the clock that says more. A machine that was put to sleep may have a
 * monotonic clock that slept too; a wall clock that is set makes a lease seem older, and one that is set back counts for nothing.
 */
export function ageMs(of: Moment, now = moment()): number {
  return Math.max(now.monotonic - of.monotonic, now.wall - of.wall);
}
