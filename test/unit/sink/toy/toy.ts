import * as z from "zod/mini";
import type { PositionText } from "../../../../lib/change/position.ts";
import type { ChangeEvent } from "../../../../lib/consume/run/event.ts";
import { type Sink, sinkKind } from "../../../../lib/sink/sink.ts";

/** What the toy holds: rows by key, with positions, and tombstones. */
export interface ToyStore {
  readonly id: string;
  readonly rows: Map<string, { position: PositionText; partition: number; row: object | undefined }>;
  /** Nothing below it comes in any more, by partition. */
  readonly removed: Map<number, PositionText>;
  /** Called before each event is written. */
  onWrite?: ((event: ChangeEvent) => void) | undefined;
}

/** Stores by name: what a toy's configuration leads to. */
export const stores = new Map<string, ToyStore>();

let made = 0;

/** Makes a store anew. */
export function makeStore(name: string): ToyStore {
  const store: ToyStore = { id: `toy-${++made}`, rows: new Map(), removed: new Map() };
  stores.set(name, store);
  return store;
}

const configuration = z.object({
  store: z.string("write the name of a store"),
  tables: z.array(z.string()).check(z.minLength(1, "write a table such as public.orders")),
  maxEvents: z.optional(z.int()),
});

/** A kind of sink that keeps rows in memory: it compares positions, as a sink must. */
export const toyKind = sinkKind("toy", configuration, openToy);

function openToy({ store: name, tables, maxEvents }: z.output<typeof configuration>): Sink {
  const store = () => stores.get(name) ?? makeStore(name);
  const removeBelow = (partition: number, before: PositionText) => {
    const { rows, removed } = store();
    if ((removed.get(partition) ?? "") < before) removed.set(partition, before);
    for (const [key, held] of rows)
      if (held.partition === partition && held.position < before) rows.delete(key);
  };
  return {
    tables,
    ...(maxEvents === undefined ? {} : { maxEvents }),
    async apply(events) {
      const { rows, removed, onWrite } = store();
      for (const event of events) {
        onWrite?.(event);
        const { position, partition, key } = event;
        if (event.operation === "truncate") removeBelow(partition, position);
        if (event.operation === "truncate" || event.operation === "message") continue;
        const id = JSON.stringify(key);
        if ((rows.get(id)?.position ?? "") >= position || (removed.get(partition) ?? "") > position) continue;
        rows.set(id, {
          position,
          partition,
          row: event.operation === "delete" ? undefined : (event.after as object),
        });
      }
    },
    sweep: async ({ partition, before }) => removeBelow(partition, before),
    identity: async () => ({ id: store().id }),
    verify: {
      table: () => ({
        async *rows() {
          yield [...store().rows.values()].flatMap(({ row }) => (row ? [{ ...row }] : []));
        },
        row: async (key) => {
          const { row } = store().rows.get(JSON.stringify(key)) ?? {};
          return row && { ...row };
        },
      }),
    },
  };
}
