import { formatTable } from "../../change/table-pattern.ts";
import { sourceKind } from "../../source/index.ts";
import { type Check, ok } from "./check.ts";
import { type Examination, needed } from "./examination.ts";
import { counted } from "./project.ts";

/** Longer than connecting may take, so that its own error is told. */
const DATABASE_MS = 25_000;
/** Tables that are named in a line, at most. */
const NAMED = 5;

/** The source database: a session, and the preflight of its kind of source. */
export function databaseChecks(examination: Examination): readonly Check[] {
  return [
    {
      name: "database",
      deadlineMs: DATABASE_MS,
      async look() {
        const { place, version, user } = await examination.session();
        return ok(`${place}, PostgreSQL ${version}, as ${user}`);
      },
    },
    {
      name: "preflight",
      deadlineMs: 2 * DATABASE_MS,
      async look() {
        const pipeline = examination.requirePipeline();
        await needed(examination.session(), "needs a session with the database: see database");
        const { tables, warnings } = await examination.captured();
        const notes = warnings.map(({ code, message, remedy }) => `${code}: ${message}. ${remedy}`);
        if (sourceKind(pipeline.source).can.give === "events")
          return ok("the outbox is as relays need it", notes);
        const more = tables.length > NAMED ? ` and ${tables.length - NAMED} more` : "";
        const names = tables.slice(0, NAMED).map(formatTable).join(", ");
        return ok(`${counted(tables.length, "table")}: ${names}${more}`, notes);
      },
    },
  ];
}
