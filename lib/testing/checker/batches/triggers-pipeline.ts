import { triggers } from "../../../definition/pipeline.ts";
import { batchesPipeline } from "./definition.ts";

/** The checker's tables behind triggers. */
export default batchesPipeline(
  triggers({ tables: ["public.*", "archive.*"], intervalMs: 100, batchRows: 300 }),
);
