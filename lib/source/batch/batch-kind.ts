import { NO_EVENTS } from "../nothing-to-remove.ts";

/** The parts of a `SourceKind` that are the same for all that read tables in batches: one task, no slot, rows alone. */
export const BATCH_KIND = {
  settings: ({ kind }: { readonly kind: string }) => ({
    ...{ source: kind, publication: undefined, slot: undefined, beside: [] },
  }),
  tasks: () => [1],
  metrics: "tables",
  can: { give: "rows", backfill: false, putAside: false },
  readsExisting: () => false,
  events: () => NO_EVENTS,
  outbox: () => undefined,
} as const;

/** Says what the next start does after a new epoch. */
export function newEpochOfBatches({ kind }: { readonly kind: string }): string {
  return `begins to read by ${kind}`;
}
