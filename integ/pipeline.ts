import { definePipeline, postgres } from "../lib/definition/pipeline.ts";

/** The pipeline that is deployed to see it work on AWS: one table, one consumer that keeps its rows in DynamoDB. */
export default definePipeline({
  name: "integ",
  source: postgres({ tables: ["public.customers"] }),
  stream: { mode: "on-demand", retentionHours: 24 },
  consumers: [
    {
      name: "customer-view",
      entry: "functions/customer-view.ts",
      topics: ["*.public.customers"],
    },
  ],
});
