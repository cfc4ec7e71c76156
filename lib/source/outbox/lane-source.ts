import { randomUUID } from "node:crypto";
import { routeTables } from "../../definition/route.ts";
import type { LaneOptions, LaneSource } from "../source-kind.ts";
import type { OutboxSource } from "./definition.ts";
import { OutboxEnvelope } from "./event/envelope.ts";
import { checkOutbox } from "./preflight.ts";
import { Relay } from "./relay.ts";
import { RelayDatabase } from "./relay-database.ts";

/**
 * A relay over the outbox of a pipeline.
 * @throws what `checkOutbox` throws.
 */
export async function openLanes(options: LaneOptions<OutboxSource>): Promise<LaneSource> {
  const { pipeline, connection, leaseMs, signal, log } = options;
  const { source } = pipeline;
  const database = await checkOutbox({ connection, pipeline, signal });
  const id = randomUUID();
  const tables = new RelayDatabase({ connection, table: source.table, id, signal });
  const { cloudEvents, malformed, intervalMs, batchRows, keepHours } = source;
  return {
    database,
    disown: () => tables.disown(),
    run: async ({ epoch, ...task }) => {
      log.info("relays the outbox", { relay: id, epoch });
      const route = routeTables(pipeline);
      const envelope = new OutboxEnvelope({ pipeline, database, route, cloudEvents, now: Date.now });
      await new Relay({
        database: tables,
        rows: { envelope, pipeline, database, epoch, malformed },
        ...{ intervalMs, batchRows, keepHours, leaseMs, signal, log },
        ...task,
      }).run();
    },
  };
}
