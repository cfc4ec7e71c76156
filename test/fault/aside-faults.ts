import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { dynamodbClient } from "../../lib/aws/clients.ts";
import { parseLsn } from "../../lib/change/lsn.ts";
import { formatPosition } from "../../lib/change/position.ts";
import { between, type SeededRandom } from "../../lib/local/shop/catalog.ts";
import { readAsides, wantAside } from "../../lib/state/asides.ts";
import { readBackfills, requestBackfill } from "../../lib/state/backfills.ts";
import { readHolds, wantRelease } from "../../lib/state/holds.ts";
import type { StatePlace } from "../../lib/state/persistent-table.ts";
import { UNDECODABLE_VARIABLE } from "../../lib/testing/checker/pipeline.ts";
import type { Rig } from "../../lib/testing/checker/rig.ts";
import { eventually } from "../eventually.ts";
import type { Fault } from "./faults.ts";

const TABLE = "public.accounts";
const TOPIC = "checked.public.accounts";
/** Above those that the workload writes. */
const FIRST_ID = 1_000_000;
/** Longer than the 2 KB from which PostgreSQL stores a value apart. */
const LONG = 3_000;
const NO_TEXT = "'\\xe9'::bytea::text";

/** A session of the source, and the state table behind no fault. */
async function scene<T>(rig: Rig, act: (client: pg.Client, store: StatePlace) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: rig.databaseUrl });
  await client.connect();
  const dynamodb = dynamodbClient(rig.aws.environment);
  try {
    // Bytes that are no text, in a database that takes only text: what a broken restore or a C function may leave behind.
    await client.query("CREATE CAST (bytea AS text) WITHOUT FUNCTION").catch(() => {});
    const signal = AbortSignal.timeout(15 * 60_000);
    return await act(client, {
      dynamodb,
      table: rig.resources.stateTable,
      pipeline: rig.definition.name,
      signal,
    });
  } finally {
    dynamodb.destroy();
    await client.end();
  }
}

/**
 * A row, a change of it that cannot be decoded, and one that corrects it and leaves a long value as it is: that value travels in
 * none that is given.
 */
async function breakRow(client: pg.Client, id: number, tag: string): Promise<void> {
  await client.query("INSERT INTO accounts VALUES ($1, $2, 'good', $3)", [
    id,
    `${tag}-1`,
    "a".repeat(LONG + (id % 1000)),
  ]);
  await client.query("BEGIN");
  await client.query("INSERT INTO archive.accounts VALUES ($1, $2, 'beside')", [id, `${tag}-2`]);
  const bad = `UPDATE accounts SET v = $2, name = ${NO_TEXT}, note = $3 WHERE id = $1`;
  await client.query(bad, [id, `${tag}-3`, "b".repeat(LONG + (id % 1000))]);
  await client.query("UPDATE archive.accounts SET v = $2 WHERE id = $1", [id, `${tag}-4`]);
  await client.query("COMMIT");
  await client.query("UPDATE accounts SET v = $2, name = 'corrected' WHERE id = $1", [id, `${tag}-5`]);
}

/** Waits until what was put aside is passed and its table read again. An operator asks again where the row was met in between. */
async function healed(store: StatePlace): Promise<void> {
  await eventually(
    async () => {
      if ((await readAsides(store)).length > 0) return false;
      const backfill = (await readBackfills(store)).find(({ table }) => table === TABLE);
      if (backfill?.status === "refused")
        await requestBackfill(store, TABLE, { sweep: true, requestedAt: Date.now() });
      return backfill?.status === "done";
    },
    { what: "the table to be read again", deadlineMs: 300_000 },
  );
}

let rounds = 0;

async function undecodableValues(rig: Rig, random: SeededRandom, strength: number): Promise<number> {
  return await scene(rig, async (client, store) => {
    const first = FIRST_ID + 1_000 * rounds++;
    const count = 4 * strength;
    for (let i = 0; i < count; i++) {
      await breakRow(client, first + i, `aside-${first + i}`);
      await delay(between(random, 0, 800));
      if (random() < 0.5) for (const capture of rig.captures) capture.kill();
    }
    await client.query("DELETE FROM accounts WHERE id = $1", [first]);
    await healed(store);
    return count;
  });
}

/** A topic is held at a change, the task is killed, and an operator puts the change aside and releases the topic. */
async function heldAndReleased(rig: Rig, random: SeededRandom, strength: number): Promise<number> {
  return await scene(rig, async (client, store) => {
    for (const capture of rig.captures) {
      capture.configure({ [UNDECODABLE_VARIABLE]: "stop" });
      capture.kill();
    }
    const held = () =>
      eventually(async () => (await readHolds(store))[0], { what: "a hold", deadlineMs: 180_000 });
    const first = FIRST_ID + 1_000 * rounds++;
    for (let i = 0; i < strength; i++) {
      await breakRow(client, first + i, `held-${first + i}`);
      const { from, reason } = await held();
      await delay(between(random, 500, 2_000));
      for (const capture of rig.captures) capture.kill();
      await delay(between(random, 500, 2_000));
      await wantAside(store, reason.position);
      await wantRelease(store, TOPIC);
      await delay(between(random, 1_000, 3_000));
      for (const capture of rig.captures) capture.kill();
      await eventually(async () => (await readHolds(store)).length === 0, {
        what: "the release",
        deadlineMs: 300_000,
      });
      const { rows } = await client.query("SELECT pg_current_wal_lsn()::text AS lsn");
      const to = formatPosition({ epoch: 1, commitLsn: parseLsn(rows[0].lsn), ordinal: 0 });
      rig.confirmations.excuse(TOPIC, from, to);
    }
    for (const capture of rig.captures) {
      capture.configure({});
      capture.kill();
    }
    await healed(store);
    return strength;
  });
}

/** Changes that no event can be made of. */
export const ASIDE_FAULTS: readonly Fault[] = [
  { name: "undecodable value", inject: undecodableValues },
  { name: "one topic held and released", inject: heldAndReleased },
];
