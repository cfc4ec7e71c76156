import { appendFileSync } from "node:fs";
import { consumer, Operation } from "../../../lib/index.ts";

/** A user's handler with the simplest sink of all: a line in a file. */
export const handler = consumer("lines")
  .on("public.items", [Operation.Create, Operation.Update, Operation.Delete], async (event) => {
    const line = `${event.topic} ${event.partition} ${event.position} ${process.pid}\n`;
    appendFileSync(process.env.LINES_FILE ?? "", line);
  })
  .handler();
