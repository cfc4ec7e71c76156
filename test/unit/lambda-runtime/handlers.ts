import { START_OF_HISTORY } from "../../../lib/change/position.ts";
import { consumer } from "../../../lib/consume/api/consumer.ts";
import { Operation } from "../../../lib/consume/api/operation.ts";
import { registerConsumers } from "../../../lib/consume/fence/start-position.ts";
import { MemoryTable } from "../consume/memory-table.ts";

const dynamodb = new MemoryTable().client(async () => "none");
await registerConsumers(dynamodb, "t", "p", [{ name: "c", topics: ["*"] }], START_OF_HISTORY);

/** A consumer whose handler is as its row says. */
export const handler = consumer("c")
  .on("*", Operation.Create, { once: "claim" }, ({ after }) => {
    console.log(`called for ${after.id}`);
    if (after.id === "1") return undefined;
    // A callback that was lost: nothing keeps the process alive, and nothing ever comes.
    return new Promise(() => {});
  })
  .handler({
    environment: {
      ...process.env,
      TRIBUTARY_STATE_TABLE: "t",
      TRIBUTARY_PIPELINE_NAME: "p",
      TRIBUTARY_POISON: "stop",
    },
    dynamodb,
  });
