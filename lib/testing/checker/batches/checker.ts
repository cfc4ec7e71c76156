import { fileURLToPath } from "node:url";
import { formatTable, type TableName } from "../../../change/table-pattern.ts";
import type { Pipeline } from "../../../definition/definition.ts";
import { routeTables } from "../../../definition/route.ts";
import { auditSchemaSql, tableTriggersSql } from "../../../source/triggers/audit-sql.ts";
import { checkedTables, readRows } from "../checked-tables.ts";
import { expectedEvents } from "../expected.ts";
import { Rig } from "../rig.ts";
import { holdsWithin, playRound } from "../round.ts";
import { CHECKED_SCHEMA, CHECKED_TABLES } from "../tables.ts";
import { Truth, type TruthChange } from "../truth.ts";
import { runWorkload } from "../workload.ts";
import { BATCHES_KIND_VARIABLE, type BatchesKind, batchesPipeline } from "./pipeline.ts";

/** Findings about a source that reads tables. */
export interface BatchesVerdict {
  /** Events that the truth tells of, and distinct ones that the append-only sink has seen, by topic. */
  readonly events: Readonly<Record<string, { readonly expected: number; readonly seen: number }>>;
  /** Effects of that sink at a position that was there before, or behind a later one of their partition. */
  readonly doubled: number;
  readonly outOfOrder: number;
  /** Rows of the tables that the position-comparing sink lacks or holds otherwise. */
  readonly wrongRows: number;
  /** Rows that it holds and the tables do not. */
  readonly surplusRows: number;
  /** Of those, the ones that the truth says were deleted, truncated or given another key. */
  readonly surplusDeleted: number;
}

const POLLED_COLUMN = CHECKED_TABLES.map(
  (table) => `
  ALTER TABLE ${formatTable(table)} ADD COLUMN updated_at timestamptz NOT NULL DEFAULT now();
  CREATE INDEX ON ${formatTable(table)} (updated_at, ${table.primaryKey.join(", ")});
  CREATE TRIGGER touch BEFORE UPDATE ON ${formatTable(table)} FOR EACH ROW EXECUTE FUNCTION touch();`,
).join("");

const POLLED_SCHEMA = `CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.updated_at := now(); RETURN NEW; END $$; ${POLLED_COLUMN}`;

const SCHEMAS: Readonly<Record<BatchesKind, string>> = {
  triggers: [
    ...auditSchemaSql("tributary"),
    ...CHECKED_TABLES.flatMap((table) => tableTriggersSql("tributary", table)),
  ].join(";\n"),
  polling: POLLED_SCHEMA,
  pollingDeletes: POLLED_SCHEMA,
};

const DEFINITION = fileURLToPath(new URL("./pipeline.ts", import.meta.url));

/** Settings of `runBatchesChecker`. */
export interface BatchesCheckerOptions {
  readonly kind: BatchesKind;
  readonly seed: number;
  /** Row changes at least. */
  readonly changes: number;
  /** Breaks things while the workload runs; whatever it broke must be whole when it resolves. */
  readonly faults: (rig: Rig) => Promise<unknown>;
  /** Time that everything has to arrive after that, in milliseconds. */
  readonly recoverMs: number;
}

/**
 * Runs the checker's workload behind triggers or polling, with faults, and counts what arrived. Triggers must give every event
 * the log gives; polling the last state of every row that is there, and nothing of deletes and of states in between; where it
 * looks for deletes, the rows that are there and no others.
 */
export async function runBatchesChecker(options: BatchesCheckerOptions): Promise<BatchesVerdict> {
  const definition = batchesPipeline(options.kind);
  const rig = await Rig.start({
    definition,
    definitionFile: DEFINITION,
    schema: `${CHECKED_SCHEMA}; ${SCHEMAS[options.kind]}`,
    captureEnvironment: { [BATCHES_KIND_VARIABLE]: options.kind },
  });
  try {
    const { databaseUrl } = rig;
    const tables = await checkedTables(databaseUrl, definition);
    const truth = await Truth.begin({ databaseUrl, name: "checker_truth", tables });
    const { seed, changes, faults } = options;
    const signal = AbortSignal.timeout(10 * 60_000);
    await playRound({
      workload: (until) => runWorkload({ databaseUrl, seed, changes, until, changesPerSecond: 200, signal }),
      faults: () => faults(rig),
    });
    const all = await truth.read();
    let verdict: BatchesVerdict | undefined;
    const whole = async () => {
      verdict = await look(rig, definition, tables, all, options.kind);
      return isWhole(verdict, options.kind);
    };
    const { recoverMs } = options;
    await holdsWithin(whole, { deadlineMs: recoverMs, everyMs: 250, hopeless: () => rig.capture.gaveUp });
    return verdict as unknown as BatchesVerdict;
  } finally {
    await rig.stop();
  }
}

/** Returns true if all that this kind of source promises has arrived. */
export function isWhole(verdict: BatchesVerdict, kind: BatchesKind): boolean {
  const { doubled, outOfOrder, wrongRows, surplusRows, surplusDeleted } = verdict;
  const counts = Object.values(verdict.events);
  const arrived: Readonly<Record<BatchesKind, boolean>> = {
    triggers: counts.every(({ expected, seen }) => expected === seen) && surplusRows === 0,
    polling: counts.every(({ expected, seen }) => seen <= expected) && surplusRows === surplusDeleted,
    // A truncate becomes a delete of each row.
    pollingDeletes: surplusRows === 0,
  };
  return arrived[kind] && doubled + outOfOrder + wrongRows === 0;
}

async function look(
  rig: Rig,
  definition: Pipeline,
  tables: readonly TableName[],
  truth: readonly TruthChange[],
  kind: BatchesKind,
): Promise<BatchesVerdict> {
  const byName = new Map(tables.map((table) => [formatTable(table), table]));
  const expected = truth
    .flatMap((change) =>
      expectedEvents(change, routeTables(definition), (name) => byName.get(name) as TableName, 1),
    )
    .reduce((counts, { topic, partitions = 1 }) => add(counts, topic, partitions), new Map<string, number>());
  const effects = await rig.sinks.effects("append");
  const places = new Set<string>();
  const seen = new Map<string, number>();
  const last = new Map<string, string>();
  let doubled = 0;
  let outOfOrder = 0;
  for (const { topic, partition, position } of effects) {
    const lane = `${topic}/${partition}`;
    const place = `${lane}/${position}`;
    if (places.has(place)) doubled++;
    else if (position < (last.get(lane) ?? "")) outOfOrder++;
    else add(seen, topic, 1);
    places.add(place);
    last.set(lane, position);
  }
  const topics = [...new Set([...expected.keys(), ...seen.keys()])].sort();
  const events = topics.map((topic) => [
    topic,
    { expected: expected.get(topic) ?? 0, seen: seen.get(topic) ?? 0 },
  ]);
  return { events: Object.fromEntries(events), doubled, outOfOrder, ...(await rows(rig, truth, kind)) };
}

function add(counts: Map<string, number>, topic: string, count: number): Map<string, number> {
  return counts.set(topic, (counts.get(topic) ?? 0) + count);
}

async function rows(
  rig: Rig,
  truth: readonly TruthChange[],
  kind: BatchesKind,
): Promise<Pick<BatchesVerdict, "wrongRows" | "surplusRows" | "surplusDeleted">> {
  const withoutTime = (rows: ReadonlyMap<string, string>) =>
    new Map([...rows].map(([key, text]) => [key, plain(text)]));
  const held = withoutTime(await rig.sinks.rows());
  const there = withoutTime(await readRows(rig.databaseUrl, CHECKED_TABLES));
  const gone = kind !== "triggers" ? goneKeys(truth) : undefined;
  const surplus = [...held.keys()].filter((key) => !there.has(key));
  return {
    wrongRows: [...there].filter(([key, text]) => held.get(key) !== text).length,
    surplusRows: surplus.length,
    surplusDeleted: surplus.filter((key) => gone?.(key)).length,
  };
}

/** Tells of a row that is not there whether the truth says why: its table was truncated, or a row of it deleted or renamed. */
function goneKeys(truth: readonly TruthChange[]): (key: string) => boolean {
  const truncated = new Set(truth.filter(({ op }) => op === "t").map(({ table }) => table));
  const deleted = new Set(
    truth.flatMap(({ table, op, key, oldKey }) =>
      op === "d" ? [`${table} ${plainKey(key)}`] : oldKey ? [`${table} ${plainKey(oldKey)}`] : [],
    ),
  );
  return (name) => {
    const space = name.indexOf(" ");
    const table = name.slice(0, space);
    const key = (JSON.parse(name.slice(space + 1)) as unknown[]).map(String);
    // Orders are told by their customer, the column that chooses their partition.
    return truncated.has(table) || table === "public.orders" || deleted.has(`${table} ${plainKey(key)}`);
  };
}

function plainKey(key: readonly string[]): string {
  return JSON.stringify(key);
}

/** Without the column that says when, whose JSON is written in two ways. */
function plain(text: string): string {
  const { updated_at: _, ...row } = JSON.parse(text) as Record<string, unknown>;
  return JSON.stringify(Object.entries(row).sort(([a], [b]) => (a < b ? -1 : 1)));
}
