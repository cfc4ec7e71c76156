import { formatLsn } from "../../change/lsn.ts";
import { logOutboxPlan } from "../../publish/install.ts";
import { OUTBOX_TABLES } from "../outbox/event/envelope.ts";
import type { SourceKind, SourceTeardown } from "../source-kind.ts";
import { completeLog, conflictOfLog, type LogSource, postgresSource, takenNames } from "./definition.ts";
import { slotNumbers } from "./slots/assignment.ts";
import type { LogTeardownPlan } from "./teardown.ts";

const teardown: SourceTeardown<LogSource, LogTeardownPlan> = {
  plan: async (place) => await (await import("./teardown.ts")).planLogTeardown(place),
  remove: async (place) => await (await import("./teardown.ts")).tearLogDown(place),
  describe: async (...said) => (await import("./teardown.ts")).describeLogTeardown(...said),
  remains: "the role and its grants, replica identities, wal_level and max_slot_wal_keep_size",
};

/** PostgreSQL's log, read through logical replication: docs, "PostgreSQL". */
export const postgresKind: SourceKind<LogSource> = {
  kind: "postgres",
  definition: {
    schema: postgresSource,
    complete: completeLog,
    conflict: conflictOfLog,
    taken: takenNames,
  },
  check: async (options) => await (await import("./postgres-source.ts")).preflight(options),
  reading: {
    by: "stream",
    open: async (options) => await (await import("./postgres-source.ts")).openPostgresSource(options),
  },
  settings: ({ publication, slot, outbox }) => ({
    source: undefined,
    publication,
    slot,
    beside: outbox ? [OUTBOX_TABLES] : [],
  }),
  tasks: (source) => slotNumbers({ source }),
  throughSlots: (pipeline) => pipeline,
  metrics: "slots",
  can: { give: "rows", backfill: true, putAside: true },
  readsExisting: ({ snapshot }) => snapshot !== "never",
  events: ({ outbox, messages }) => ({
    table: outbox?.table,
    outbox: outbox !== undefined,
    messages: messages.length > 0,
  }),
  outbox: ({ source }) => source.outbox && logOutboxPlan(source.outbox.table),
  prepare: async ({ source }) => (source.outbox ? logOutboxPlan(source.outbox.table).install : []),
  setUp: async (options) => (await import("./set-up/log-set-up.ts")).logSetUp(options),
  operate: {
    teardown,
    plan: async (place) => await (await import("./plan.ts")).planLog(place),
    newEpoch: ({ slot }) => `makes the slot "${slot}"`,
    status(_, { slot: state }) {
      if (state === undefined) return { slot: undefined };
      const { slot, publication, epoch, confirmedLsn } = state;
      return { slot, publication, epoch, confirmed: formatLsn(confirmedLsn) };
    },
  },
};
