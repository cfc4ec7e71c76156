import { once } from "node:events";
import * as z from "zod";
import type { ChangeStream, SourceMessage } from "../../../../lib/change/change-stream.ts";
import { formatPosition } from "../../../../lib/change/position.ts";
import { parseTable } from "../../../../lib/change/table-pattern.ts";
import { partitionOf } from "../../../../lib/change/topic.ts";
import { TributaryError } from "../../../../lib/change/tributary-error.ts";
import { routeTables } from "../../../../lib/definition/route.ts";
import { tableFields } from "../../../../lib/definition/source-fields.ts";
import type { SourceKind, SourceOptions } from "../../../../lib/source/source-kind.ts";

/*
 * A source without a server: all that a new kind needs beside its line in the list.
 */

const toySource = z.strictObject({
  kind: z.literal("toy"),
  ...tableFields,
  /** How many rows its table has. */
  rows: z.int().min(1).default(3),
  /** Somebody plays with it. */
  inUse: z.boolean().default(false),
});

/** A validated `toy({…})`. */
export type ToySource = z.output<typeof toySource>;

/** A table of numbers, each inserted in a transaction of its own. */
export function toy(source: Omit<z.input<typeof toySource>, "kind">): z.input<typeof toySource> {
  return { kind: "toy", ...source };
}

class ToyInUseError extends TributaryError {
  readonly code = "TOY_IN_USE";
  readonly retry = "stop";

  constructor() {
    super({ message: "somebody plays with it", remedy: "Wait." });
  }
}

/** What was asked of the kind, in order. */
export const asked: string[] = [];

export const toyKind: SourceKind<ToySource> = {
  kind: "toy",
  definition: { schema: toySource },
  async check({ pipeline }) {
    asked.push("check");
    return { tables: pipeline.source.tables.map(parseTable) };
  },
  reading: {
    by: "stream",
    async open(options) {
      asked.push("open");
      return new ToyStream(options);
    },
  },
  settings: ({ kind }) => ({ source: kind, publication: undefined, slot: undefined, beside: [] }),
  tasks: () => [1],
  metrics: "tables",
  can: { give: "rows", backfill: false, putAside: false },
  readsExisting: () => false,
  events: () => ({ table: undefined, outbox: false, messages: false }),
  outbox: () => undefined,
  prepare: async () => ["CREATE TABLE numbers (n int)"],
  setUp: async ({ role }) => [{ comments: ["A toy."], statements: [`GRANT SELECT ON numbers TO "${role}"`] }],
  operate: {
    teardown: {
      async plan({ number, pipeline }) {
        asked.push(`plan ${number}`);
        return { removes: true, inUse: pipeline.source.inUse ? new ToyInUseError() : undefined };
      },
      async remove({ number }) {
        asked.push(`remove ${number}`);
        return { removes: true, inUse: undefined };
      },
      describe: async (_, { name }, when) => [`The toy of ${name} ${when} put away.`],
      remains: "nothing",
    },
    plan: async ({ pipeline }) => ({
      ...{ database: "toys", changes: [], refusals: [], warnings: [], notes: [] },
      tasks: new Map([[1, { pipeline, tables: pipeline.source.tables.map(parseTable) }]]),
    }),
    newEpoch: () => "counts from 1 again",
    status: ({ rows }) => ({ rows }),
  },
};

/** Its places are texts, which only it can read. */
function placeOf(row: number): string {
  return `row ${String(row).padStart(4, "0")}`;
}

class ToyStream implements ChangeStream<string> {
  readonly changes: AsyncIterable<readonly SourceMessage<string>[]>;
  readonly #options: SourceOptions<ToySource>;

  constructor(options: SourceOptions<ToySource>) {
    this.#options = options;
    this.changes = this.#read();
  }

  acknowledge(place: string): void {
    asked.push(`acknowledge ${place}`);
  }

  async close(): Promise<void> {
    asked.push("close");
  }

  async *#read(): AsyncGenerator<readonly SourceMessage<string>[]> {
    const { pipeline, signal } = this.#options;
    const { tables, rows } = pipeline.source;
    const [table] = tables as [string];
    const { topic } = routeTables(pipeline)(parseTable(table));
    const partition = partitionOf("1", topic.partitions);
    for (let n = 1; n <= rows; n++) {
      const position = formatPosition({ epoch: 1, commitLsn: BigInt(n), ordinal: 1 });
      const place = {
        connector: "postgresql",
        name: pipeline.name,
        db: "toy",
        txId: String(n),
        lsn: `0/${n}`,
      };
      const when = {
        commitLsn: `0/${n}`,
        ordinal: 1,
        epoch: 1,
        ts_ms: 0,
        snapshot: "false",
        schemaVersion: "1",
      };
      const event = {
        ...{ op: "c", before: null, after: { n }, ts_ms: 0 },
        source: { ...place, ...parseTable(table), ...when, key: [] },
      };
      // Left open inside `source`: the writer closes it.
      const json = JSON.stringify(event).slice(0, -2);
      yield [
        { kind: "change", topic, partition, position, json, table },
        { kind: "commit", endPlace: placeOf(n), commitTimeMs: Date.now() },
      ];
    }
    if (!signal.aborted) await once(signal, "abort");
  }
}
