import shop from "../../../../cdk/pipeline.ts";
import { definePipeline, triggers } from "../../../definition/pipeline.ts";

/** The shop behind triggers: the same tables and consumers, without a slot. */
export default definePipeline({
  ...shop,
  source: triggers({ tables: [...shop.source.tables], intervalMs: 200 }),
});
