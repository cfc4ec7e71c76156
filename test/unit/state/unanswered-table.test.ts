import { expect, test } from "vitest";
import { dynamodbClient } from "../../../lib/aws/clients.ts";
import { persistentTable } from "../../../lib/state/persistent-table.ts";
import { checkStateFormat } from "../../../lib/state/state-format.ts";
import { stateFormatKey } from "../../../lib/state/state-key.ts";

const keys = { AWS_ACCESS_KEY_ID: "test", AWS_SECRET_ACCESS_KEY: "test" };
const { signal } = new AbortController();

test("a table whose region nobody names is refused at once: that does not pass", async () => {
  const dynamodb = dynamodbClient({ ...keys, AWS_ENDPOINT_URL: "http://127.0.0.1:9" });
  const begun = performance.now();
  const reading = persistentTable({ dynamodb, table: "t", signal }).get(stateFormatKey("shop"));
  await expect(reading).rejects.toMatchObject({
    code: "STATE_TABLE",
    remedy: expect.stringMatching(/AWS_REGION/),
  });
  expect(performance.now() - begun).toBeLessThan(5_000);
});

test("a table that does not answer is told before the verb waits for it", async () => {
  const dynamodb = dynamodbClient({
    ...keys,
    AWS_REGION: "eu-west-1",
    AWS_ENDPOINT_URL: "http://127.0.0.1:9",
  });
  const told: unknown[] = [];
  const place = { dynamodb, table: "t", pipeline: "shop", signal: AbortSignal.timeout(500) };
  await checkStateFormat(place, (error) => told.push(error));
  expect(told).toHaveLength(1);
});
