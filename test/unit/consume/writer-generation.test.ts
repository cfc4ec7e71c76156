import { describe, expect, it } from "vitest";
import { START_OF_HISTORY } from "../../../lib/change/position.ts";
import { consumer } from "../../../lib/consume/api/consumer.ts";
import { SinkUnavailableError } from "../../../lib/consume/api/handler-errors.ts";
import { ALL_OPERATIONS } from "../../../lib/consume/api/operation.ts";
import { readPartition } from "../../../lib/consume/fence/fence-item.ts";
import { registerConsumers } from "../../../lib/consume/fence/start-position.ts";
import { MemoryTable } from "./memory-table.ts";
import { at, chain, invocationOf, packed, TOPIC } from "./records.ts";

const context = { getRemainingTimeInMillis: () => 60_000 };

/** A consumer whose handler has the ids of one call, and what the fence holds of its partition. */
async function consumerOf(handle: (ids: readonly string[]) => void) {
  const table = new MemoryTable();
  const dynamodb = table.client(async () => "none");
  await registerConsumers(dynamodb, "t", "p", [{ name: "c", topics: ["*"] }], START_OF_HISTORY);
  const handler = consumer("c")
    .onBatch("*", { operations: ALL_OPERATIONS }, (events) => handle(events.map(({ id }) => id)))
    .handler({
      environment: { TRIBUTARY_STATE_TABLE: "t", TRIBUTARY_PIPELINE_NAME: "p", TRIBUTARY_POISON: "stop" },
      dynamodb,
      observer: { invocation: () => {} },
      write: () => {},
    });
  return { handler, stored: () => readPartition(table.item(`fence#${TOPIC}#0`), 0) };
}

describe("the stored writer generation", () => {
  // The old task's changes 1 to 3 are confirmed to the slot; the new one begins right behind them.
  const old = () => packed(chain(1, 3), { writer: 1 });
  const young = () => packed(chain(4, 5, null), { writer: 2 });

  it("waits for the changes of its record: nothing is lost by a deploy while the sink is away", async () => {
    const effects: string[] = [];
    let away = true;
    const { handler, stored } = await consumerOf((ids) => {
      if (away) throw new SinkUnavailableError("the sink is away");
      effects.push(...ids);
    });
    const batch = [old(), young()];
    const first = await handler(invocationOf(...batch), context);
    expect(first.batchItemFailures).toEqual([{ itemIdentifier: batch[0]?.kinesis.sequenceNumber }]);
    expect(stored()).toMatchObject({ position: START_OF_HISTORY, writer: 0 });
    away = false;
    const second = await handler(invocationOf(...batch), context);
    expect(second.batchItemFailures).toEqual([]);
    expect(effects).toEqual([1, 2, 3, 4, 5].map((commit) => at(commit)));
    expect(stored()).toMatchObject({ position: at(5), writer: 2 });
  });

  it("stands with the last change that took effect where only a part of a call did", async () => {
    const { handler, stored } = await consumerOf((ids) => {
      if (ids.length > 2) throw new Error("in halves, please");
      if (ids[0] === at(3)) throw new SinkUnavailableError("the sink is away");
    });
    await handler(invocationOf(old(), young()), context);
    expect(stored()).toMatchObject({ position: at(2), writer: 1 });
  });

  it("does not come from a record that stopped at a gap", async () => {
    const { handler, stored } = await consumerOf(() => {});
    const missing = packed(chain(4, 5), { writer: 1 });
    const behind = packed(chain(6, 7), { writer: 2 });
    await handler(invocationOf(old(), behind), context);
    expect(stored()).toMatchObject({ position: at(3), writer: 1 });
    expect(await handler(invocationOf(missing, behind), context)).toEqual({ batchItemFailures: [] });
    expect(stored()).toMatchObject({ position: at(7), writer: 2 });
  });

  it("comes from a record that took effect before: its writer begins there", async () => {
    const effects: string[] = [];
    const { handler, stored } = await consumerOf((ids) => {
      effects.push(...ids);
    });
    const again = packed(chain(2, 3, null), { writer: 2 });
    await handler(invocationOf(old(), again), context);
    expect(stored()).toMatchObject({ position: at(3), writer: 2 });
    await handler(invocationOf(packed(chain(4, 4), { writer: 1 })), context);
    expect(effects, "nothing of the old writer's counts any more").toEqual([at(1), at(2), at(3)]);
  });
});
