import { type AttributeValue, DeleteTableCommand, ScanCommand } from "@aws-sdk/client-dynamodb";
import { beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { START_OF_HISTORY } from "../../lib/change/position.ts";
import type { VerifiableTable } from "../../lib/consume/api/verifiable-sink.ts";
import { registerConsumers } from "../../lib/consume/fence/start-position.ts";
import { createTable } from "../../lib/local/resources.ts";
import type { SinkIdentity } from "../../lib/sink/sink.ts";
import { eventually } from "../eventually.ts";
import { at, backfillEnd, type Change, packed } from "../unit/consume/records.ts";
import { emulatedAws } from "./emulated.ts";

const topic = "shop.public.customers";
const ada = {
  id: "1",
  email: "ada@example.com",
  tier: "basic",
  credit: "12345678901234567890.10",
  note: null,
};

describe("the items of customer-view", () => {
  const aws = emulatedAws();
  let customerTable = "";
  let tables = 0;
  let identity: (() => Promise<SinkIdentity>) | undefined;
  /** What `tributary verify` is given by the instance that was made last. */
  let held: VerifiableTable | undefined;
  beforeAll(() => {
    for (const [name, value] of Object.entries(aws().environment)) if (value) vi.stubEnv(name, value);
    return () => vi.unstubAllEnvs();
  });
  beforeEach(async () => {
    customerTable = `customers-${++tables}-${process.pid}`;
    await createTable(aws().dynamodb, customerTable, ["id"]);
  });

  /**
   * A function instance that knows nothing of what others did: with a fence of its own, as if an old invocation's
   * effects arrived only now.
   */
  async function freshInstance(): Promise<(...changes: Change[]) => Promise<void>> {
    const { dynamodb, freshTable, freshQueue } = aws();
    const stateTable = await freshTable();
    await registerConsumers(
      dynamodb,
      stateTable,
      "shop",
      [{ name: "customer-view", topics: ["*"] }],
      START_OF_HISTORY,
    );
    vi.stubEnv("TRIBUTARY_STATE_TABLE", stateTable);
    vi.stubEnv("TRIBUTARY_PIPELINE_NAME", "shop");
    vi.stubEnv("TRIBUTARY_DEAD_LETTER_QUEUE_URL", await freshQueue());
    vi.stubEnv("CUSTOMER_TABLE", customerTable);
    vi.resetModules();
    const { handler, sink, customers } = await import("../../functions/customer-view.ts");
    identity = () => customers.identity();
    const context = { getRemainingTimeInMillis: () => 60_000 };
    // It reads its environment at the first call.
    await handler({ Records: [] }, context);
    held = sink.table({ schema: "public", table: "customers" });
    return async (...changes) => {
      const records = changes.map((change) =>
        packed([{ table: "customers", ...change }], { topic, partition: 7 }),
      );
      const reply = await handler({ Records: records }, context);
      expect(reply).toEqual({ batchItemFailures: [] });
    };
  }
  const items = async () => {
    const { Items = [] } = await aws().dynamodb.send(
      new ScanCommand({ TableName: customerTable, ConsistentRead: true }),
    );
    return Items;
  };
  const alive = async () => (await items()).filter((item) => !item.deleted?.BOOL);
  const tier = (item: Record<string, AttributeValue> | undefined) => item?.tier?.S;

  it("hold the row's exact values and its position", async () => {
    const apply = await freshInstance();
    await apply({ at: 1, after: null, row: ada });
    expect(await items()).toEqual([
      {
        id: { S: "1" },
        email: { S: "ada@example.com" },
        tier: { S: "basic" },
        credit: { S: "12345678901234567890.10" },
        note: { NULL: true },
        position: { S: at(1) },
        partition: { N: "7" },
      },
    ]);
  });

  it("keep columns that did not travel", async () => {
    const apply = await freshInstance();
    const { note: _, ...withoutNote } = ada;
    await apply({ at: 1, after: null, row: { ...ada, note: "long" } });
    await apply({ at: 2, after: 1, op: "u", row: { ...withoutNote, tier: "gold" }, unchanged: ["note"] });
    expect((await items())[0]).toMatchObject({ note: { S: "long" }, tier: { S: "gold" } });
  });

  it("are not touched by what comes late, whatever operation it is", async () => {
    const [now, late] = [await freshInstance(), await freshInstance()];
    await now({ at: 9, after: null, row: { ...ada, tier: "gold" } });
    await late({ at: 3, after: null, row: ada });
    await late({ at: 4, after: 3, op: "u", row: ada });
    await late({ at: 5, after: 4, op: "d", row: { id: "1" } });
    await late({ at: 6, after: 5, op: "t" });
    expect((await alive()).map(tier)).toEqual(["gold"]);
  });

  it("do not come back after a delete, until the customer is created anew", async () => {
    const [now, late] = [await freshInstance(), await freshInstance()];
    await now({ at: 1, after: null, row: ada });
    await now({ at: 9, after: 1, op: "d", row: { id: "1" } });
    await late({ at: 3, after: null, row: ada }, { at: 4, after: 3, op: "u", row: ada });
    expect(await alive()).toEqual([]);
    expect(Number((await items())[0]?.expiresAt?.N)).toBeGreaterThan(Date.now() / 1000);
    await now({ at: 10, after: 9, row: { ...ada, tier: "again" } });
    expect((await alive()).map(tier)).toEqual(["again"]);
    expect((await items())[0]?.expiresAt, "TTL must not remove the living").toBeUndefined();
  });

  it("go with a truncate of their partition, and later ones stay", async () => {
    const apply = await freshInstance();
    await apply({ at: 1, after: null, row: ada }, { at: 2, after: 1, row: { ...ada, id: "2" } });
    await apply({ at: 5, after: 2, op: "t" }, { at: 6, after: 5, row: { ...ada, id: "3" } });
    expect((await alive()).map((item) => item.id?.S)).toEqual(["3"]);
  });

  it("go with a sweep where the backfill did not meet them, and stay gone", async () => {
    const [now, late] = [await freshInstance(), await freshInstance()];
    await now({ at: 1, after: null, row: ada }, { at: 2, after: 1, row: { ...ada, id: "2" } });
    await now(
      { at: 5, after: 2, op: "r", row: { ...ada, tier: "gold" } },
      { at: 6, after: 5, op: "m", message: backfillEnd(at(4), { table: "public.customers" }) },
    );
    expect((await alive()).map((item) => [item.id?.S, tier(item)])).toEqual([["1", "gold"]]);
    await late({ at: 3, after: null, op: "u", row: { ...ada, id: "2" } });
    expect(await alive()).toHaveLength(1);
  });

  it("can be verified: the living by the source's columns, alone and all of them", async () => {
    const apply = await freshInstance();
    await apply({ at: 1, after: null, row: ada }, { at: 2, after: 1, row: { ...ada, id: "2" } });
    await apply({ at: 3, after: 2, op: "d", row: { id: "2" } });
    const signal = AbortSignal.timeout(30_000);
    const rows = [];
    for await (const page of held?.rows(signal) ?? []) rows.push(...page);
    expect(rows).toEqual([ada]);
    expect(await held?.row({ id: "1" }, signal)).toEqual(ada);
    expect(await held?.row({ id: "2" }, signal)).toBeUndefined();
    expect(await held?.row({ id: "3" }, signal)).toBeUndefined();
  });

  it("are known by the table that has them: one that was made anew is another", async () => {
    await freshInstance();
    const first = await identity?.();
    expect(first?.id).toMatch(/\S/);
    expect(await identity?.()).toEqual(first);
    const { dynamodb } = aws();
    await dynamodb.send(new DeleteTableCommand({ TableName: customerTable }));
    const gone = () =>
      identity?.().then(
        () => false,
        () => true,
      );
    await eventually(gone, { what: "the table to be gone" });
    await createTable(dynamodb, customerTable, ["id"]);
    expect(await identity?.()).not.toEqual(first);
  });
});
