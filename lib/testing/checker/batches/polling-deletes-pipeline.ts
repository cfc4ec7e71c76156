import { polling } from "../../../definition/pipeline.ts";
import { batchesPipeline } from "./definition.ts";

/** The checker's tables, polled, with deletes looked for: each delete's partition must be known from the primary key. */
export default batchesPipeline(
  polling({
    ...{ tables: ["public.*", "archive.*"], intervalMs: 100, batchRows: 300 },
    deletes: { everySeconds: 1 },
  }),
  {},
);
