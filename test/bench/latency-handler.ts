import { consumer, Operation } from "tributary";

/** Prints how long ago each change was committed, by the clock that both sides share. */
export const handler = consumer("latency")
  .on("public.ticks", Operation.Create, ({ committedAt }) => {
    console.log(JSON.stringify({ latencyMs: Date.now() - committedAt.getTime() }));
  })
  .handler();
