import { refusalsOf } from "../plan-refusals.ts";
import type { SourcePlanPlace } from "../source-kind.ts";
import type { SourceChange, SourcePlan } from "../source-plan.ts";
import type { OutboxSource } from "./definition.ts";
import { checkOutbox } from "./preflight.ts";

/**
 * Says what a start would change: the outbox's tables must be there already. Touches nothing.
 * @throws the errors of `connect`.
 */
export async function planOutbox({
  connection,
  pipeline,
  signal,
  stored,
}: SourcePlanPlace<OutboxSource>): Promise<SourcePlan> {
  const nothing = { tasks: new Map(), changes: [], refusals: [], warnings: [], notes: [] };
  try {
    const database = await checkOutbox({ connection, pipeline, ...(signal && { signal }) });
    const { kind } = pipeline.source;
    const begins: SourceChange = {
      what: "reading",
      action: "add",
      name: kind,
      existing: true,
      rows: undefined,
    };
    const tasks = new Map([[1, { pipeline, tables: [] }]]);
    return { ...nothing, database, tasks, changes: stored.get(1)?.reading ? [] : [begins] };
  } catch (error) {
    return { ...nothing, database: undefined, refusals: refusalsOf(error) };
  }
}
