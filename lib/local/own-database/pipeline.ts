import { readDefinition } from "../../definition/file.ts";
import { definePipeline, postgres } from "../../definition/pipeline.ts";
import { type LogPipeline, requireLog } from "../../source/postgres/definition.ts";
import { DEFINITION_VARIABLE, EXCLUDE_VARIABLE, TABLES_VARIABLE } from "./variables.ts";

/*
 * The definition behind `npm start -- --database-url …`: one made of the tables named, or the user's. The host and the
 * capture task, each in its own process, read it with the same variables.
 */

/** Never the slot of a deployed pipeline: reading from that one would take its changes away. */
const LOCAL_NAME = "tributary_local";

const file = process.env[DEFINITION_VARIABLE];
const definition = file
  ? requireLog(await readDefinition(file), "npm start on your own database")
  : generic();

export default definePipeline({
  ...definition,
  source: { ...definition.source, slot: LOCAL_NAME, publication: LOCAL_NAME },
});

function generic(): LogPipeline {
  return definePipeline({
    name: "local",
    source: postgres({
      tables: patterns(process.env[TABLES_VARIABLE]),
      exclude: patterns(process.env[EXCLUDE_VARIABLE]),
      // Said before it begins instead, with how to remove the slot: someone is looking.
      acceptUnboundedWal: true,
      // What happens from now on; a whole database would hide it.
      snapshot: "never",
    }),
    consumers: [
      { name: "print-changes", entry: "functions/print-changes.ts", topics: ["*"], batchSize: 1000 },
    ],
  });
}

function patterns(text: string | undefined): string[] {
  return text ? text.split(",") : [];
}
