import shop from "../../../../cdk/pipeline.ts";
import { definePipeline, polling } from "../../../definition/pipeline.ts";

/** The shop polled by a column that each of its tables is given; deletes are found by comparing keys. */
export default definePipeline({
  ...shop,
  source: polling({
    ...{ tables: [...shop.source.tables], column: "changed_at", intervalMs: 500 },
    deletes: { everySeconds: 2 },
  }),
});
