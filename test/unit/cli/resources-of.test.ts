import { mkdir, mkdtemp, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { resourcesOf } from "../../../lib/cli/resources-of.ts";
import { ownIdentity } from "../../../lib/local/process-identity.ts";

const SHOP = { name: "shop" };
const DEV = {
  TRIBUTARY_STATE_TABLE: "tributary-shop",
  TRIBUTARY_STREAM: "tributary-shop",
  AWS_ENDPOINT_URL_DYNAMODB: "http://127.0.0.1:4567",
  TRIBUTARY_CLAIM_BUCKET: "file:///claims",
  TRIBUTARY_CAPTURE_DEAD_LETTER_QUEUE_URL: "http://127.0.0.1:4568/put-aside",
};

let folder: string;
beforeEach(async () => {
  folder = await realpath(await mkdtemp(join(tmpdir(), "tributary-resources-")));
  await mkdir(join(folder, ".tributary"));
  const run = {
    ...{ ...ownIdentity(), project: folder, pipeline: "shop", environment: DEV },
    database: { url: "postgres://me@localhost:5433/shop", needsPassword: false },
    consumers: { orders: { entry: "/shop/orders.ts", deadLetterQueue: "http://127.0.0.1:4568/orders" } },
  };
  await writeFile(join(folder, "package.json"), "{}");
  await writeFile(join(folder, ".tributary", "dev.json"), JSON.stringify(run));
});
afterEach(async () => {
  await rm(folder, { recursive: true });
});

it("gives the resources of the tributary dev that a verb speaks to", async () => {
  expect(await resourcesOf(SHOP, {}, { folder, environment: DEV })).toEqual({
    pipeline: "shop",
    place: `tributary dev (process ${process.pid})`,
    stack: undefined,
    stateTable: "tributary-shop",
    stream: "tributary-shop",
    claimStore: "file:///claims",
    captureDeadLetters: "http://127.0.0.1:4568/put-aside",
    captures: [],
    consumers: {
      orders: {
        ...{ function: undefined, mapping: undefined, redriveFunction: undefined, verifyTask: undefined },
        entry: "/shop/orders.ts",
        deadLetterQueue: "http://127.0.0.1:4568/orders",
      },
    },
  });
});

it("takes nothing of a tributary dev that the verb does not speak to", async () => {
  const elsewhere = {
    place: "state table theirs",
    ...{ stateTable: "theirs", stream: undefined, consumers: {} },
  };
  const given = { environment: { TRIBUTARY_STATE_TABLE: "theirs" }, folder };
  expect(await resourcesOf(SHOP, {}, given)).toMatchObject(elsewhere);
  expect(await resourcesOf(SHOP, { stateTable: "theirs" }, { folder, environment: {} })).toMatchObject(
    elsewhere,
  );
  const sameName = { ...DEV, AWS_ENDPOINT_URL_DYNAMODB: undefined };
  expect(await resourcesOf(SHOP, {}, { folder, environment: sameName })).toMatchObject({ consumers: {} });
});

it("says what to name where nothing names a state table", async () => {
  await expect(resourcesOf(SHOP, {}, { folder, environment: {} })).rejects.toThrow(/--state-table.*nothing/s);
});
