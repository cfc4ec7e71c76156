import { definePipeline, postgres } from "../../pipeline.ts";

/*
 * The definition behind `npm start -- --database-url … --tables …`. The host and the capture task, each in its own
 * process, read it with the same variables.
 */

/** Tables, as patterns with commas between them. */
export const TABLES_VARIABLE = "TRIBUTARY_LOCAL_TABLES";
/** `true`: the definition accepts an unbounded WAL. */
export const UNBOUNDED_WAL_VARIABLE = "TRIBUTARY_LOCAL_ACCEPT_UNBOUNDED_WAL";

export default definePipeline({
  name: "local",
  source: postgres({
    tables: (process.env[TABLES_VARIABLE] ?? "public.*").split(","),
    acceptUnboundedWal: process.env[UNBOUNDED_WAL_VARIABLE] === "true",
  }),
  consumers: [{ name: "print-changes", entry: "functions/print-changes.ts", topics: ["*"], batchSize: 1000 }],
});
