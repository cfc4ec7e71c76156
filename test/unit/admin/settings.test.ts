import { DynamoDBClient } from "@aws-sdk/client-dynamodb";
import { expect, test } from "vitest";
import { planEpoch, requestBackfill } from "../../../lib/admin/index.ts";
import { completeDefinition, postgres } from "../../../lib/definition/pipeline.ts";
import { connectionFromUrl } from "../../../lib/source/postgres/link/connection.ts";

/*
 * Scripts give what no option of the command line would let pass. It is refused before anything is called.
 */

const dynamodb = new DynamoDBClient({
  region: "eu-central-1",
  endpoint: "http://127.0.0.1:1",
  maxAttempts: 1,
});
const { signal } = new AbortController();

test.each([Number.NaN, -1, 1.5])("an epoch above %d", async (above) => {
  const options = {
    pipeline: completeDefinition({ name: "shop", source: postgres({ tables: ["public.*"] }) }),
    connection: connectionFromUrl("postgres://me@127.0.0.1:1/shop", {}),
    ...{ dynamodb, stateTable: "State", dropSlot: false, leaseMs: 1_000, signal, log: () => {} },
  };
  await expect(planEpoch({ ...options, above })).rejects.toThrow(/--above: write a whole number/);
});

test("a sweep beside a filter, which would remove the rows that it leaves out", async () => {
  const place = { dynamodb, table: "State", pipeline: "shop", signal };
  const wish = { where: "id < 10", sweep: true, requestedAt: 0 };
  await expect(requestBackfill(place, "public.orders", wish)).rejects.toThrow(
    /leave out the filter or the sweep/,
  );
});
