import type { PublishedEvents, SourceTeardown } from "./source-kind.ts";

/** Of a source that gives rows of tables and nothing else. */
export const NO_EVENTS: PublishedEvents = { table: undefined, outbox: false, messages: false };

/**
 * Of a source that reads tables: it holds nothing back at the server, so that what stands there may stay.
 * @param how whose it is, and how it goes
 */
export function nothingToRemove(how: string): SourceTeardown {
  const plan = { removes: false, inUse: undefined };
  return {
    plan: async () => plan,
    remove: async () => plan,
    describe: async () => ["There is no slot: nothing at the server holds WAL back for this pipeline.", how],
    remains: "the role and its grants, and what was made for the pipeline to read",
  };
}
