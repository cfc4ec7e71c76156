import { START_OF_HISTORY } from "../../../../lib/change/position.ts";
import { consumer } from "../../../../lib/consume/api/consumer.ts";
import { Operation } from "../../../../lib/consume/api/operation.ts";
import { registerConsumers } from "../../../../lib/consume/fence/start-position.ts";
import { MemoryTable } from "../../consume/memory-table.ts";

const dynamodb = new MemoryTable().client(async () => "none" as const);
await registerConsumers(dynamodb, "t", "p", [{ name: "c", topics: ["*"] }], START_OF_HISTORY);

/** A consumer whose handler waits for what never comes, and holds nothing that would keep the process alive. */
export const handler = consumer("c")
  .on("*", Operation.Create, () => new Promise<void>(() => {}))
  .handler({
    environment: { TRIBUTARY_STATE_TABLE: "t", TRIBUTARY_PIPELINE_NAME: "p", TRIBUTARY_POISON: "stop" },
    dynamodb,
  });
