import { polling } from "../../../definition/pipeline.ts";
import { batchesPipeline } from "./definition.ts";

/** The checker's tables, polled. */
export default batchesPipeline(
  polling({ tables: ["public.*", "archive.*"], intervalMs: 100, batchRows: 300 }),
);
