import shop from "../../../../cdk/pipeline.ts";
import { definePipeline, outbox } from "../../../definition/pipeline.ts";

/**
 * The shop by its events instead of its tables: what it publishes in its own transactions, read by a relay. One
 * consumer has to do with events; the others follow rows.
 */
export default definePipeline({
  ...shop,
  source: outbox(),
  consumers: shop.consumers
    .filter(({ name }) => name === "notifications")
    .map((consumer) => ({ ...consumer, topics: ["*.outbox.order"] })),
});
