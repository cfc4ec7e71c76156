import { appendFileSync, existsSync } from "node:fs";
import { consumer } from "../../../lib/consume/api/consumer.ts";
import { Operation } from "../../../lib/consume/api/operation.ts";

/*
 * A consumer in a file of its own, for redrive from the command line: fails on the key `bad` while the file HEALED is not
 * there; what takes effect stands in the file EFFECTS, a line each.
 */

const { CONSUMER = "", EFFECTS = "", HEALED = "" } = process.env;

export const handler = consumer(CONSUMER)
  .on("public.orders", Operation.Update, (event) => {
    if (event.after.id === "bad" && !existsSync(HEALED)) throw new Error("poison");
    appendFileSync(EFFECTS, `${event.after.id}@${Number.parseInt(event.id.slice(8, 24), 16)}\n`);
  })
  .handler();
