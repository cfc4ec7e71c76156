import type pg from "pg";
import type { TableName } from "../../change/table-pattern.ts";
import type { PipelineOf, SourceDefinition } from "../../definition/definition.ts";
import { refusalsOf } from "../plan-refusals.ts";
import { estimateTables, type TableSize } from "../postgres/catalog/table-size.ts";
import { withConnection } from "../postgres/link/connection.ts";
import { PreflightError, type PreflightProblem } from "../postgres/postgres-errors.ts";
import { captureTables } from "../postgres/preflight/captured-tables.ts";
import { type CheckResult, gather } from "../postgres/preflight/findings.ts";
import { readServerFacts, type ServerFacts } from "../postgres/preflight/server-facts.ts";
import { readRelations, readTables, type TableFacts } from "../postgres/preflight/table-facts.ts";
import type { SourceCheck, SourceKind, SourceOptions, SourcePlanPlace } from "../source-kind.ts";
import type { SourceChange, SourcePlan } from "../source-plan.ts";
import type { BatchReader } from "./batch-reader.ts";
import { BatchStream, checkRecord } from "./batch-stream.ts";
import { checkKeysOfWholeRows, checkTableServer } from "./table-checks.ts";

/** The definition of a source that reads tables in batches. */
export type BatchDefinition = SourceDefinition & { readonly intervalMs: number };

/** The parts of a `SourceKind` that need the driver. */
export interface BatchSource<D extends BatchDefinition> {
  readonly check: SourceKind<D>["check"];
  readonly plan: SourceKind<D>["operate"]["plan"];
  open(options: SourceOptions<D>): Promise<BatchStream>;
}

/** One way to read tables in batches: its own checks, and its reader. */
export interface BatchWay<D extends BatchDefinition, Found> {
  /** Problems of the server, beside those that every way would have with it. */
  checkServer(client: pg.Client, source: D, server: ServerFacts): Promise<PreflightProblem[]>;
  /** Checks the tables that are captured, and returns what the reader needs to know of them. */
  checkTables(
    client: pg.Client,
    pipeline: PipelineOf<D>,
    server: ServerFacts,
    captured: readonly TableName[],
    tables: readonly TableFacts[],
  ): Promise<{ readonly findings: readonly CheckResult[]; readonly found: Found }>;
  reader(options: SourceOptions<D>, server: ServerFacts, found: Found): BatchReader;
  /** A first start reads the rows that are there already. */
  readonly readsExisting: boolean;
  /** Says what else an operator should know before a start. */
  notes?(client: pg.Client, pipeline: PipelineOf<D>): Promise<readonly string[]>;
}

/** Makes a source of a way to read tables: looks before it opens, and throws PreflightError with all problems. */
export function batchSource<D extends BatchDefinition, Found>(way: BatchWay<D, Found>): BatchSource<D> {
  const look = async (client: pg.Client, pipeline: PipelineOf<D>) => {
    const server = await readServerFacts(client);
    const captured = captureTables(pipeline.source, await readRelations(client));
    const tables = await readTables(client, captured.tables);
    const { findings, found } = await way.checkTables(client, pipeline, server, captured.tables, tables);
    const own = await way.checkServer(client, pipeline.source, server);
    const { problems, warnings } = gather([
      { problems: [...checkTableServer(server), ...own], warnings: [] },
      captured,
      checkKeysOfWholeRows(pipeline, tables),
      ...findings,
    ]);
    if (problems.length > 0) throw new PreflightError(problems);
    return { tables, server, found, warnings };
  };
  const check = async ({ connection, pipeline, signal }: SourceCheck<D>) =>
    await withConnection(connection, { signal }, (client) => look(client, pipeline));
  const plan = async ({ connection, pipeline, signal, stored }: SourcePlanPlace<D>): Promise<SourcePlan> =>
    await withConnection(connection, { signal }, async (client) => {
      const { kind } = pipeline.source;
      const { database } = connection;
      const nothing = { database, tasks: new Map(), changes: [], refusals: [], warnings: [], notes: [] };
      try {
        const { tables, warnings } = await look(client, pipeline);
        const reading = stored.get(1)?.reading;
        if (reading) checkRecord(reading, kind, database);
        const existing = way.readsExisting;
        const rows = existing ? sumOfRows(await estimateTables(client, tables)) : undefined;
        const changes: SourceChange[] = reading
          ? []
          : [{ what: "reading", action: "add", name: kind, existing, rows }];
        const notes = (await way.notes?.(client, pipeline)) ?? [];
        return { ...nothing, tasks: new Map([[1, { pipeline, tables }]]), changes, warnings, notes };
      } catch (error) {
        return { ...nothing, refusals: refusalsOf(error) };
      }
    });
  return {
    check,
    plan,
    async open(options) {
      const { pipeline, record, log } = options;
      const { server, found, warnings } = await check(options);
      for (const { code, message, remedy } of warnings) log.warn(message, { code, remedy });
      const reader = way.reader(options, server, found);
      const { intervalMs } = pipeline.source;
      return await BatchStream.open({ ...options, record: record.reading, reader, intervalMs });
    },
  };
}

/** Returns undefined where one of them is not known. */
function sumOfRows(sizes: ReadonlyMap<string, TableSize>): number | undefined {
  let sum = 0;
  for (const { rows } of sizes.values()) {
    if (rows === undefined) return undefined;
    sum += rows;
  }
  return sum;
}
