import { Tally } from "../check.ts";

/** One effect of an event, in the order of the effects. */
export interface OutboxEffect {
  readonly order: string;
  readonly version: number;
  readonly partition: number;
}

/** Findings about an outbox. All must be 0. */
export interface OutboxFindings {
  readonly events: number;
  /** Committed and without effect. */
  readonly lost: number;
  /** In effect and not committed. */
  readonly extra: number;
  readonly duplicates: number;
  readonly outOfOrder: number;
  /** The first ones in words. */
  readonly examples: readonly string[];
}

/** Holds effects against the versions that orders have: each of 1 to that number once, in their order. */
export function checkOutbox(
  versions: ReadonlyMap<string, number>,
  effects: readonly OutboxEffect[],
): OutboxFindings {
  const found = new Tally("lost", "extra", "duplicates", "outOfOrder");
  const seen = new Map<string, number[]>();
  for (const { order, version } of effects) {
    const before = seen.get(order) ?? [];
    seen.set(order, before);
    const last = before.at(-1) ?? 0;
    if (version > (versions.get(order) ?? 0)) found.report("extra", `order ${order} version ${version}`);
    else if (before.includes(version)) found.report("duplicates", `order ${order} version ${version}`);
    else if (version !== last + 1)
      found.report("outOfOrder", `order ${order} version ${version} after ${last}`);
    before.push(version);
  }
  let events = 0;
  for (const [order, version] of versions) {
    events += version;
    for (let v = 1; v <= version; v++) {
      if (!seen.get(order)?.includes(v)) found.report("lost", `order ${order} version ${v}`);
    }
  }
  return { events, ...found.counts, examples: found.examples };
}
