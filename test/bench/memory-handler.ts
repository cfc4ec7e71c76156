import { consumer } from "tributary-cdc";

/** Takes batches and does nothing with them: its memory is the library's. */
export const handler = consumer("memory")
  .onBatch("public.items", { maxEvents: 1000 }, () => {})
  .handler();
