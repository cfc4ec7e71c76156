import { definePipeline, postgres } from "../lib/definition/pipeline.ts";

/** The example pipeline: the shop of `npm start`. `cdk deploy` and `npm start` both read this file. */
export default definePipeline({
  name: "shop",
  source: postgres({
    tables: ["public.customers", "public.orders", "public.order_items", "public.cancellations"],
  }),
  stream: { mode: "on-demand" },
  consumers: [
    {
      // Bulk: few large statements into a second PostgreSQL database.
      name: "order-summary",
      entry: "functions/order-summary.ts",
      topics: ["*.public.orders", "*.public.order_items"],
    },
    {
      // One by one: an item a customer in DynamoDB.
      name: "customer-view",
      entry: "functions/customer-view.ts",
      topics: ["*.public.customers"],
    },
    {
      // Side effects that must not repeat: letters to customers.
      name: "notifications",
      entry: "functions/notifications.ts",
      topics: ["*.public.cancellations"],
    },
  ],
});
