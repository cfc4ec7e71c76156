import { execFile } from "node:child_process";
import { rm } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { beginEpoch } from "../../lib/admin/begin-epoch.ts";
import { dynamodbClient } from "../../lib/aws/clients.ts";
import { formatTable } from "../../lib/change/table-pattern.ts";
import { between } from "../../lib/local/shop/catalog.ts";
import { connectionFromUrl } from "../../lib/source/postgres/link/connection.ts";
import { hasEnded, readBackfills, requestBackfill } from "../../lib/state/backfills.ts";
import type { Rig } from "../../lib/testing/checker/rig.ts";
import { CHECKED_TABLES } from "../../lib/testing/checker/tables.ts";
import { entriesOf } from "../../lib/testing/fault/put-records.ts";
import { eventually } from "../eventually.ts";
import { type Fault, streaming } from "./faults.ts";

const run = promisify(execFile);
const LEASE_MS = 3_000;
const FORKED = /"code":"(SERVER_BEHIND|HISTORY_FORKED|TIMELINE_FORKED)"/;

/**
 * Faults after which history begins anew: what the server committed is not what it has, so the rows that a sink keeps are checked,
 * and not each change. Each is the last round of its pipeline.
 */
export const FORK_FAULTS: readonly Fault[] = [
  { name: "server loses its last commits and comes back", beginsAnew: true, inject: losesCommits },
];

/**
 * The data directory is put back to a copy that lacks commits whose changes are in the stream, while the capture tasks' record,
 * which could not be written meanwhile, is older than the copy.
 */
async function losesCommits(rig: Rig, random: () => number): Promise<number> {
  for (const capture of rig.captures) await streaming(capture);
  await delay(between(random, 500, 1_500));
  rig.aws.choose("dynamodb", ({ operation, body }) =>
    operation === "UpdateItem" && JSON.stringify(body).includes('":slot"')
      ? { kind: "error", status: 500, code: "InternalServerError" }
      : undefined,
  );
  const { dataDirectory } = rig.source;
  const copy = `${dataDirectory}.copy`;
  try {
    await rig.source.kill();
    await run("cp", ["-a", dataDirectory, copy]);
    await rig.source.restart();
    const behind = new Set(rig.captures);
    rig.aws.choose("kinesis", (call) => {
      // Beats bear the generation, too; a task that was there before the copy has written its own.
      if (entriesOf(call).some(({ PartitionKey }) => !PartitionKey.startsWith("$")))
        for (const capture of behind) if (capture.sent(call)) behind.delete(capture);
      return undefined;
    });
    await eventually(() => behind.size === 0, { what: "changes that will be lost", deadlineMs: 60_000 });
    await delay(between(random, 500, 1_500));
    await rig.source.kill();
    for (const capture of rig.captures) capture.kill();
    await rm(dataDirectory, { recursive: true });
    await run("cp", ["-a", copy, dataDirectory]);
  } finally {
    rig.aws.choose("kinesis", undefined);
    rig.aws.choose("dynamodb", undefined);
    await rm(copy, { recursive: true, force: true });
  }
  await rig.source.restart();
  for (const capture of rig.captures) {
    await eventually(() => capture.gaveUp, { what: "every capture task to give up", deadlineMs: 120_000 });
    if (!capture.log.some((line) => FORKED.test(line)))
      throw new Error(`it gave up for another reason:\n${capture.log.slice(-3).join("\n")}`);
  }
  await beginAnew(rig);
  return 1;
}

/** The way on that the error names. */
async function beginAnew(rig: Rig): Promise<void> {
  const signal = AbortSignal.timeout(10 * 60_000);
  const dynamodb = dynamodbClient(rig.aws.environment);
  const { definition: pipeline, resources } = rig;
  const table = resources.stateTable;
  try {
    await Promise.all(rig.captures.map((capture) => capture.stop()));
    await beginEpoch({
      ...{ pipeline, connection: connectionFromUrl(rig.databaseUrl), dynamodb, stateTable: table },
      ...{ dropSlot: true, leaseMs: LEASE_MS, signal, log: () => {} },
    });
    for (const capture of rig.captures) capture.start();
    for (const capture of rig.captures) await streaming(capture);
    // Of itself where the definition does not say `snapshot: "never"`.
    const store = { dynamodb, table, pipeline: pipeline.name, signal };
    for (const name of CHECKED_TABLES)
      await requestBackfill(store, formatTable(name), { sweep: true, requestedAt: Date.now() });
    await eventually(async () => (await readBackfills(store)).every(hasEnded), {
      what: "the tables to be read again",
      deadlineMs: 240_000,
    });
    const refused = (await readBackfills(store)).find(({ status }) => status === "refused");
    if (refused) throw new Error(`the backfill of ${refused.table} is refused: ${refused.progress?.reason}`);
  } finally {
    dynamodb.destroy();
  }
}
