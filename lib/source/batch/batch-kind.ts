import { NO_EVENTS, nothingToRemove } from "../nothing-to-remove.ts";
import type { SourceKind } from "../source-kind.ts";
import type { BatchDefinition, BatchSource } from "./batch-source.ts";

/** The part of a kind of its own, beside that of all that read tables in batches. */
interface BatchKind<D extends BatchDefinition> extends Pick<SourceKind<D>, "kind" | "prepare" | "setUp"> {
  readonly schema: SourceKind<D>["definition"]["schema"];
  /** Imports what needs the driver. */
  load(): Promise<BatchSource<D>>;
  /** Says whose what stands at the server is, and how it goes. */
  readonly remains: string;
}

/** A kind of source that reads tables in batches: one task, no slot, rows alone. */
export function batchKind<D extends BatchDefinition>(own: BatchKind<D>): SourceKind<D> {
  const { kind, schema, load, prepare, setUp, remains } = own;
  return {
    kind,
    definition: { schema },
    check: async (options) => await (await load()).check(options),
    reading: { by: "stream", open: async (options) => await (await load()).open(options) },
    settings: () => ({ source: kind, publication: undefined, slot: undefined, beside: [] }),
    tasks: () => [1],
    metrics: "tables",
    can: { give: "rows", backfill: false, putAside: false },
    readsExisting: () => false,
    events: () => NO_EVENTS,
    outbox: () => undefined,
    prepare,
    setUp,
    operate: {
      plan: async (place) => await (await load()).plan(place),
      teardown: nothingToRemove(remains),
      newEpoch: () => `begins to read by ${kind}`,
      status: (_, { reading }) => ({ epoch: reading?.epoch, confirmed: reading?.confirmedLsn.toString() }),
    },
  };
}
