import { once } from "node:events";
import { createServer } from "node:http";
import { GetItemCommand } from "@aws-sdk/client-dynamodb";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { dynamodbClient } from "../../lib/aws/clients.ts";
import { awsFailure, wasAnswered } from "../../lib/aws/failure.ts";

const refuses = createServer((_request, response) => {
  const body = { __type: "com.amazon.coral.service#AccessDeniedException", message: "row value 4711" };
  response.writeHead(400, { "content-type": "application/x-amz-json-1.0" }).end(JSON.stringify(body));
});
let port = 0;
beforeAll(async () => {
  // The machine's own must not fill in what is missing.
  for (const name of ["AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"]) vi.stubEnv(name, undefined);
  vi.stubEnv("AWS_CONFIG_FILE", "/dev/null");
  refuses.listen(0, "127.0.0.1");
  await once(refuses, "listening");
  port = (refuses.address() as { port: number }).port;
});
afterAll(() => {
  vi.unstubAllEnvs();
  refuses.closeAllConnections();
  refuses.close();
});

const keys = { AWS_ACCESS_KEY_ID: "id", AWS_SECRET_ACCESS_KEY: "secret" };
const region = { AWS_REGION: "eu-central-1" };

test.each([
  [
    "nobody listens",
    () => ({ ...keys, ...region, AWS_ENDPOINT_URL: "http://127.0.0.1:1" }),
    "ECONNREFUSED at 127.0.0.1:1",
  ],
  ["no region", () => ({ ...keys, AWS_ENDPOINT_URL: "http://127.0.0.1:1" }), "no region is set (AWS_REGION)"],
  [
    "a refusal",
    () => ({ ...keys, ...region, AWS_ENDPOINT_URL: `http://127.0.0.1:${port}` }),
    "AccessDeniedException (HTTP 400)",
  ],
])("names what an AWS call failed with: %s", async (what, environment, text) => {
  const client = dynamodbClient(environment());
  const error = await client
    .send(new GetItemCommand({ TableName: "state", Key: { pk: { S: "4711" } } }))
    .catch((thrown: unknown) => thrown);
  client.destroy();
  expect(awsFailure(error)).toBe(text);
  expect(wasAnswered(error)).toBe(what === "a refusal");
});

test("the first of several addresses stands for all; no message is passed on", () => {
  const refused = Object.assign(new Error("4711"), { code: "ECONNREFUSED", address: "::1", port: 443 });
  expect(awsFailure(new AggregateError([refused], "4711"))).toBe("ECONNREFUSED at ::1:443");
  const unknown = Object.assign(new Error("4711"), { code: "ENOTFOUND", hostname: "nowhere.invalid" });
  expect(awsFailure(unknown)).toBe("ENOTFOUND at nowhere.invalid");
  expect(awsFailure(new Error("4711"))).toBe("Error");
});
