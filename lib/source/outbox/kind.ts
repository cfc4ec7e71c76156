import { relayOutboxPlan } from "../../publish/install.ts";
import { NO_EVENTS, nothingToRemove } from "../nothing-to-remove.ts";
import type { SourceKind } from "../source-kind.ts";
import { type OutboxSource, outboxSource } from "./definition.ts";
import { OUTBOX_TABLES } from "./event/envelope.ts";

/** An outbox table that relays read: docs, "The outbox". */
export const outboxKind: SourceKind<OutboxSource> = {
  kind: "outbox",
  definition: { schema: outboxSource },
  async check(options) {
    await (await import("./preflight.ts")).checkOutbox(options);
    return { tables: [] };
  },
  reading: {
    by: "lanes",
    open: async (options) => await (await import("./lane-source.ts")).openLanes(options),
  },
  settings: ({ kind }) => ({
    source: kind,
    publication: undefined,
    slot: undefined,
    beside: [OUTBOX_TABLES],
  }),
  tasks: () => [1],
  metrics: "tables",
  can: { give: "events", backfill: false, putAside: false },
  readsExisting: () => false,
  events: () => NO_EVENTS,
  outbox: ({ source, topics }) => relayOutboxPlan(source.table, topics.partitions),
  prepare: async ({ source, topics }) => relayOutboxPlan(source.table, topics.partitions).install,
  setUp: async (options) => (await import("./set-up.ts")).outboxSetUp(options),
  operate: {
    teardown: nothingToRemove(
      "The outbox, with events that nobody has read, is its owner's to drop: tributary outbox uninstall",
    ),
    plan: async (place) => await (await import("./plan.ts")).planOutbox(place),
    newEpoch: ({ kind }) => `begins to read by ${kind}`,
    // How far its relays are stands in the database.
    status: ({ table }) => ({ table }),
  },
};
