import type { ConfigurationProblem } from "../errors.ts";

/** After this silence of its owner the capture lease is taken over. All who may take it must agree on it. */
export const DEFAULT_LEASE_MS = 15_000;

/** What `TRIBUTARY_LEASE_MS` says: milliseconds from 100 up; left out, the default. */
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
