import { PutItemCommand } from "@aws-sdk/client-dynamodb";
import { describe, expect, it } from "vitest";
import { acceptGap } from "../../../lib/admin/accept-gap.ts";
import { START_OF_HISTORY } from "../../../lib/change/position.ts";
import { registerConsumers } from "../../../lib/consume/fence/start-position.ts";
import type { MissingChanges } from "../../../lib/consume/run/missing-changes.ts";
import { fenceKey } from "../../../lib/state/state-key.ts";
import { MemoryTable } from "./memory-table.ts";
import { at, TOPIC } from "./records.ts";

const { signal } = new AbortController();
const GAP: MissingChanges = {
  ...{ topic: TOPIC, partition: 0, cause: "gap", behind: at(1), upTo: at(3), writer: 1 },
  ...{ foundAt: "2026-01-01T00:00:00Z", accepted: undefined, swept: [] },
};

describe("a gap of a partition whose fence is not to be built on", () => {
  it.each([
    ["names a list of parked keys that is not there", { k0: { S: "~aaaaaaaaaaaaaaaa" } }],
    ["has a hold of a newer library", { k0: { S: "~held" }, h0: { S: '{"v":2}' } }],
  ])("is not accepted where it %s", async (_, altered) => {
    const table = new MemoryTable();
    const dynamodb = table.client(async () => "none");
    await registerConsumers(dynamodb, "t", "p", [{ name: "c", topics: ["*"] }], START_OF_HISTORY);
    const { pk, sk } = fenceKey({ pipeline: "p", consumer: "c" }, TOPIC, 0);
    const Item = { pk: { S: pk }, sk: { S: sk }, m0: { S: at(1) }, w0: { N: "1" }, ...altered };
    await dynamodb.send(new PutItemCommand({ TableName: "t", Item }));
    const place = { dynamodb, table: "t", pipeline: "p", consumer: "c" };
    const accepting = acceptGap(place, { missing: [GAP], tables: [], others: [] }, "me", signal);
    await expect(accepting).rejects.toThrow();
    expect(table.item(sk)).toMatchObject(Item);
    expect(table.item(sk)).not.toHaveProperty("e0");
  });
});
