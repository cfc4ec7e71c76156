import type pg from "pg";
import { formatTable, parseTable, type TableName } from "../../change/table-pattern.ts";
import { captures } from "../../definition/definition.ts";
import { refusalsOf } from "../plan-refusals.ts";
import type { SourcePlanPlace } from "../source-kind.ts";
import type { PlanFinding, SourceChange, SourcePlan, StoredTask } from "../source-plan.ts";
import { hasEnded, startSteps } from "./backfill/backfill-record.ts";
import { readPublication } from "./catalog/publication.ts";
import { estimateTables } from "./catalog/table-size.ts";
import { contractTable } from "./contract/at-start.ts";
import { compareTerms } from "./contract/difference.ts";
import { lossesOf } from "./contract/losses.ts";
import { checkPublication, readPublicationOid } from "./contract/publication-watch.ts";
import { readTerms } from "./contract/terms.ts";
import type { LogPipeline, LogSource } from "./definition.ts";
import { withConnection } from "./link/connection.ts";
import { SlotInUseError } from "./postgres-errors.ts";
import { checkSettings } from "./postgres-source.ts";
import { type PreflightReport, preflight } from "./preflight/preflight.ts";
import { readServerVersion } from "./preflight/server-facts.ts";
import { checkFoundSlot } from "./slot/first-start.ts";
import { checkHistory, identifySystem, isOurs, readSlot, timelineHistory } from "./slot/slot.ts";
import type { SlotState } from "./slot/slot-record.ts";
import { slotNames, slotNumbers } from "./slots/assignment.ts";
import { readShare, type SlotShare } from "./slots/share.ts";
import {
  checkNoneArrives,
  checkRetirable,
  checkSlotEpoch,
  isReceived,
  slotsToRetire,
} from "./slots/slot-count.ts";

/** Collected while the slots are looked at, one after the other. */
interface Findings {
  readonly tasks: Map<
    number,
    { readonly pipeline: LogPipeline; readonly tables: readonly (TableName & { readonly oid: number })[] }
  >;
  readonly changes: SourceChange[];
  readonly refusals: PlanFinding[];
  readonly warnings: PlanFinding[];
  readonly notes: string[];
}

type Place = SourcePlanPlace<LogSource> & { readonly client: pg.Client };

/**
 * Says what a start would change at the server. Touches nothing: what it asks are the questions of the start itself, and a replication session
 * is opened only to learn which server it is.
 * @throws the errors of `connect`.
 */
export async function planLog(place: SourcePlanPlace<LogSource>): Promise<SourcePlan> {
  const { connection, pipeline, signal, stored } = place;
  return await withConnection(connection, { signal }, async (client) => {
    const found: Findings = { tasks: new Map(), changes: [], refusals: [], warnings: [], notes: [] };
    const own = { ...place, client };
    for (const number of slotNumbers(pipeline))
      await refused(found, async () => await planSlot(own, number, found));
    await refused(found, async () => await planRetired(own, found));
    planLeft(pipeline, stored, found);
    await planBackfills(own, found);
    return { ...found, database: connection.database };
  });
}

/** What would stop the start is a finding here. */
async function refused(found: Findings, look: () => Promise<void>): Promise<void> {
  try {
    await look();
  } catch (error) {
    for (const refusal of refusalsOf(error))
      if (!found.refusals.some(({ message }) => message === refusal.message)) found.refusals.push(refusal);
  }
}

async function planSlot(place: Place, number: number, found: Findings): Promise<void> {
  const { client, pipeline, stored } = place;
  const share = await readShare(client, pipeline, number);
  const own = share?.pipeline ?? pipeline;
  const report = await preflight(client, own, share?.isOwn);
  found.tasks.set(number, { pipeline: own, tables: report.tables });
  found.refusals.push(...report.problems);
  found.warnings.push(...report.warnings);
  const state = stored.get(number)?.slot;
  const first = stored.get(1)?.slot;
  if (number > 1 && first) checkSlotEpoch(state, first);
  if (share) planMoves(place, share, number, found);
  if (state === undefined) {
    if (report.problems.length === 0) await planFirstStart(place, own, report, number, found);
    return;
  }
  checkSettings(state, own, report);
  planPublication(own, report, found);
  await checkServer(place, state, found);
  await planContract(client, state, report, found);
}

/** A slot that has no record yet. */
async function planFirstStart(
  { client }: Place,
  pipeline: LogPipeline,
  report: PreflightReport,
  number: number,
  found: Findings,
): Promise<void> {
  const { slot } = pipeline.source;
  const there = await readSlot((sql) => client.query(sql), slot);
  if (there) checkFoundSlot(there, pipeline.source, report, true);
  planPublication(pipeline, report, found);
  found.changes.push({ what: "slot", action: there ? "change" : "add", name: slot, number });
}

function planPublication({ source }: LogPipeline, report: PreflightReport, found: Findings): void {
  const { publication: step, tables } = report;
  const { publication: name } = source;
  if (step.kind === "create") {
    const added = tables.map(formatTable);
    const publication = {
      what: "publication",
      action: "add",
      name,
      added,
      removed: [],
      changed: [],
    } as const;
    found.changes.push({ ...publication, sql: step.sql });
  }
  if (step.kind === "alter" && step.differs)
    found.changes.push({ what: "publication", action: "change", name, ...step.tables, sql: step.sql });
  else if (step.kind === "alter")
    found.notes.push(
      `The row filters of the publication "${name}" are told to the server again; whether one of them changed, the server says then.`,
    );
}

/** Holds the record against the server and its slot, as the start does before it reads. */
async function checkServer({ client, connection, signal }: Place, state: SlotState, found: Findings) {
  const query = (sql: string) => client.query(sql);
  checkPublication(
    state.publication,
    state.publicationOid,
    await readPublicationOid(query, state.publication),
  );
  await withConnection(connection, { replication: true, signal }, async (replication) => {
    const system = await identifySystem(replication);
    const moved = system.timeline !== state.timeline;
    const history = moved ? await timelineHistory(replication, system.timeline) : new Map<number, bigint>();
    const slot = await readSlot(query, state.slot);
    try {
      checkHistory(state, slot, system, history);
    } catch (error) {
      if (!(error instanceof SlotInUseError)) throw error;
      // The pipeline's own task, most likely.
      const holder = slot?.holder ? ` (${slot.holder})` : "";
      found.notes.push(
        `The slot "${state.slot}" is read by process ${slot?.activePid}${holder}: the start waits for its end.`,
      );
    }
  });
}

/** The publication may have said less since it was last looked at. */
async function planContract(
  client: pg.Client,
  state: SlotState,
  { tables, server }: PreflightReport,
  found: Findings,
): Promise<void> {
  const now = await readTerms((sql) => client.query(sql), state.publication, server.version);
  if (!now || !state.terms) return;
  const differences = compareTerms(state.terms, now.terms, tables.map(contractTable));
  for (const { table, reason } of lossesOf(
    state.publication,
    differences,
    state.termsSeen ?? now.seen,
    now.seen,
  ))
    found.changes.push({ what: "missing changes", action: "add", name: table, reason });
}

function planMoves(
  { pipeline, stored }: Place,
  { incoming }: SlotShare,
  number: number,
  found: Findings,
): void {
  const nameOf = (slot: number) => slotNames(pipeline.source, slot).slot;
  for (const share of incoming) {
    const owner = share.owner as number;
    if (!isReceived(share, stored.get(owner)?.arriving ?? {})) {
      found.notes.push(
        `The topic "${share.topic}" should move to the slot "${nameOf(number)}", and a later start moves it: "${nameOf(owner)}" still receives it.`,
      );
      continue;
    }
    for (const table of share.tables)
      found.changes.push({
        ...{ what: "table", action: "change", name: formatTable(table) },
        ...{ from: nameOf(owner), to: nameOf(number) },
      });
  }
}

/** Slots that the definition has no more. */
async function planRetired({ client, pipeline, connection, stored }: Place, found: Findings): Promise<void> {
  const had = stored.get(1)?.slots ?? 1;
  const numbers = slotsToRetire(had, pipeline.source.slots);
  if (numbers.length === 0) return;
  checkNoneArrives(
    pipeline,
    had,
    slotNumbers(pipeline).map((number) => stored.get(number)?.arriving ?? {}),
  );
  const version = await readServerVersion(client);
  for (const number of numbers) {
    const names = slotNames(pipeline.source, number);
    const publication = await readPublication(client, names.publication, version);
    const task = stored.get(number);
    checkRetirable(pipeline, had, publication, (task?.retired.length ?? 0) > 0);
    const slot = await readSlot((sql) => client.query(sql), names.slot);
    if (slot && task?.slot && isOurs(slot, connection.database))
      found.changes.push({ what: "slot", action: "remove", name: names.slot, number });
    if (publication?.ours)
      found.changes.push({
        ...{ what: "publication", action: "remove", name: names.publication },
        ...{ added: [], removed: [], changed: [], sql: [] },
      });
  }
}

/** Tables that were captured when a task last ran, and are not any more. */
function planLeft(pipeline: LogPipeline, stored: ReadonlyMap<number, StoredTask>, found: Findings): void {
  const known = [...stored.values()].flatMap(({ slot }) => Object.keys(slot?.tables ?? {}));
  const now = new Set(tablesOf(found).map(formatTable));
  for (const name of new Set(known))
    if (!now.has(name) && !captures(pipeline.source, parseTable(name)))
      found.changes.push({ what: "table", action: "remove", name });
}

function tablesOf({ tasks }: Findings) {
  return [...tasks.values()].flatMap(({ tables }) => tables);
}

async function planBackfills({ client, pipeline, stored, backfills }: Place, found: Findings): Promise<void> {
  const first = stored.get(1);
  const epoch = first?.slot?.epoch ?? first?.newEpoch?.epoch ?? 1;
  const tables = tablesOf(found);
  const names = tables.map(formatTable);
  const latest = new Map(backfills.map((backfill) => [backfill.table, backfill]));
  const steps = startSteps(pipeline.source, names, latest, epoch, 0);
  const sizes = await estimateTables(client, tables);
  for (const { table: name, step } of steps) {
    if (step.kind === "leave") continue;
    const action = step.kind === "request" ? "add" : "change";
    const size = sizes.get(name) ?? { rows: undefined, bytes: undefined };
    found.changes.push({ what: "backfill", action, name, sweep: step.request.sweep, ...size });
  }
  // Without all slots seen, nobody knows which tables have left.
  if (found.tasks.size < pipeline.source.slots) return;
  for (const backfill of backfills)
    if (!names.includes(backfill.table) && !hasEnded(backfill))
      found.changes.push({
        ...{ what: "backfill", action: "remove", name: backfill.table },
        ...{ sweep: false, rows: undefined, bytes: undefined },
      });
}
