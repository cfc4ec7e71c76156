import { PutItemCommand } from "@aws-sdk/client-dynamodb";
import { afterEach, expect, test } from "vitest";
import { AWAIT_DEPLOYMENT_VARIABLE } from "../../lib/state/deployment.ts";
import { deployedKey } from "../../lib/state/state-key.ts";
import { emulatedAws } from "../aws/emulated.ts";
import { freshDatabase, withPostgres } from "../postgres/server.ts";
import { CaptureBench } from "./capture-bench.ts";

const aws = emulatedAws();
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** As the CDK stack sets it. */
const AWAITING = { [AWAIT_DEPLOYMENT_VARIABLE]: "true" };

withPostgres((server) => {
  async function bench(): Promise<CaptureBench> {
    const made = await CaptureBench.create(aws(), await freshDatabase(server()));
    cleanups.push(() => made.end());
    return made;
  }

  async function slots(b: CaptureBench): Promise<number> {
    const { rowCount } = await b.client.query("SELECT FROM pg_replication_slots WHERE slot_name = $1", [
      b.slot,
    ]);
    return rowCount ?? 0;
  }

  test("a first deploy that is rolled back leaves neither slot nor publication; one that is complete goes on", async () => {
    const b = await bench();
    const rolledBack = b.capture(AWAITING);
    await rolledBack.printed("the slot is made when the deployment is complete");
    // Longer than it takes to go on.
    await expect(rolledBack.printed("took the capture lease", 5_000)).rejects.toThrow("waited");
    rolledBack.signal("SIGTERM");
    expect(await rolledBack.ended).toBe(0);
    expect(await slots(b)).toBe(0);
    expect((await b.client.query("SELECT FROM pg_publication")).rowCount).toBe(0);

    const again = b.capture(AWAITING);
    await again.printed("the slot is made when the deployment is complete");
    const { pk, sk } = deployedKey("shop");
    const Item = { pk: { S: pk }, sk: { S: sk } };
    await aws().dynamodb.send(new PutItemCommand({ TableName: b.consumer.table, Item }));
    await again.printed("streaming from slot");
    expect(await slots(b)).toBe(1);
    again.signal("SIGTERM");
    expect(await again.ended).toBe(0);
  });

  test("what the database lacks fails the deploy, and is not waited with", async () => {
    const b = await bench();
    await b.client.query("CREATE TABLE without_key (note text)");
    const capture = b.capture(AWAITING);
    expect(await capture.ended).toBe(2);
    expect(capture.lines.join("\n")).toContain("REPLICA_IDENTITY");
    expect(await slots(b)).toBe(0);
  });
});
