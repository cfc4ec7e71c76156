import { consumer, Operation } from "tributary-cdc";

/** Prints when it was called for each row. */
export const handler = consumer("latency")
  .on("public.ticks", Operation.Create, ({ after }) => {
    const handledAt = performance.timeOrigin + performance.now();
    console.log(JSON.stringify({ id: String(after.id), handledAt }));
  })
  .handler();
