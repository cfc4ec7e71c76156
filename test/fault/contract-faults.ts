import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { dynamodbClient } from "../../lib/aws/clients.ts";
import { quoteIdentifier, quoteTable } from "../../lib/change/sql-identifier.ts";
import { formatTable } from "../../lib/change/table-pattern.ts";
import { between, type SeededRandom } from "../../lib/local/shop/catalog.ts";
import { hasEnded, readBackfill, requestBackfill } from "../../lib/state/backfills.ts";
import { readUnhealed } from "../../lib/state/unhealed.ts";
import type { Rig } from "../../lib/testing/checker/rig.ts";
import { CHECKED_TABLES } from "../../lib/testing/checker/tables.ts";
import { eventually } from "../eventually.ts";
import { type Fault, streaming } from "./faults.ts";

const CHECKED = CHECKED_TABLES.map(formatTable);

async function withDatabase<T>(rig: Rig, use: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: rig.databaseUrl });
  await client.connect();
  try {
    return await use(client);
  } finally {
    await client.end();
  }
}

/**
 * Lets the pipeline's publications say less, and then what they said before, while nobody looks; a part of them by their actions, the
 * others by their tables. Writers wait meanwhile: what the checker holds the sinks against must not be lost.
 */
async function narrowAndPutBack(rig: Rig, random: SeededRandom): Promise<void> {
  const tables = CHECKED_TABLES.map(quoteTable).join(", ");
  await withDatabase(rig, (writers) =>
    withDatabase(rig, async (other) => {
      await writers.query(`BEGIN; LOCK TABLE ${tables} IN SHARE ROW EXCLUSIVE MODE`);
      const { rows } = await other.query<{ name: string; tables: string[] }>(`
        SELECT p.pubname::text AS name, ARRAY(SELECT r.prrelid::regclass::text FROM pg_publication_rel r WHERE r.prpubid = p.oid) AS tables
          FROM pg_publication p WHERE obj_description(p.oid, 'pg_publication') LIKE 'Made by Tributary%'`);
      for (const { name, tables: named } of rows) {
        const publication = `ALTER PUBLICATION ${quoteIdentifier(name)}`;
        if (random() < 0.5) {
          await other.query(`${publication} SET (publish = 'insert')`);
          await other.query(`${publication} SET (publish = 'insert, update, delete, truncate')`);
        } else {
          await writers.query(`${publication} DROP TABLE ${named.join(", ")}`);
          await writers.query(`${publication} ADD TABLE ${named.map((table) => `ONLY ${table}`).join(", ")}`);
        }
      }
      await writers.query("COMMIT");
    }),
  );
}

/** Waits until these tables are noted, and does of each what `tributary capture status` says, until nothing is noted any more. */
async function heal(rig: Rig, tables: readonly string[]): Promise<void> {
  const dynamodb = dynamodbClient(rig.aws.environment);
  const signal = AbortSignal.timeout(10 * 60_000);
  const store = { dynamodb, table: rig.resources.stateTable, pipeline: rig.definition.name, signal };
  try {
    let noted: readonly string[] = [];
    await eventually(
      async () => {
        noted = (await readUnhealed(store)).map(({ table }) => table);
        return tables.every((table) => noted.includes(table));
      },
      { what: () => `${tables.join(", ")} to be noted; noted are: ${noted.join(", ") || "none"}` },
    );
    for (const table of noted) {
      const known = await readBackfill(store, table);
      if (!known || hasEnded(known))
        await requestBackfill(store, table, { sweep: true, requestedAt: Date.now() });
    }
    await eventually(async () => (await readUnhealed(store)).length === 0, {
      what: "the backfills to heal what may be missing",
      deadlineMs: 180_000,
    });
  } finally {
    dynamodb.destroy();
  }
}

/** The tasks look anew when they start: some are killed, so that what happened is found by either kind of look. */
async function someKilled(rig: Rig, random: SeededRandom): Promise<void> {
  for (const capture of rig.captures) {
    if (random() < 0.5) continue;
    await delay(between(random, 0, 1_500));
    capture.kill();
  }
}

/** A partitioned table of the fault's own, whose rows are older than its being captured: nothing of it reaches the sinks. */
async function parted(rig: Rig, name: string): Promise<void> {
  await withDatabase(rig, (client) =>
    client.query(`
      CREATE TABLE ${name} (id int, day int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
      CREATE TABLE ${name}_1 PARTITION OF ${name} FOR VALUES FROM (1) TO (2);
      CREATE TABLE ${name}_2 PARTITION OF ${name} FOR VALUES FROM (2) TO (3);
      CREATE TABLE ${name}_3 PARTITION OF ${name} FOR VALUES FROM (3) TO (4);
      INSERT INTO ${name} SELECT i, i FROM generate_series(1, 3) i`),
  );
  // A start captures it; its first look takes the partitions as they are, and stores them.
  for (const capture of rig.captures) {
    capture.kill();
    await eventually(() => !capture.streaming, { what: "the kill" });
    await streaming(capture);
  }
  await delay(5_000);
}

/** What others do to the publication and to partitions in the middle of everything. */
export const CONTRACT_FAULTS: readonly Fault[] = [
  {
    name: "publication narrowed and put back",
    async inject(rig, random, strength) {
      for (let i = 0; i < strength; i++) {
        for (const capture of rig.captures) await streaming(capture);
        for (const capture of rig.captures) capture.freeze(true);
        try {
          await narrowAndPutBack(rig, random);
        } finally {
          for (const capture of rig.captures) capture.freeze(false);
        }
        await someKilled(rig, random);
        await heal(rig, CHECKED);
      }
      return strength;
    },
  },
  {
    name: "partition detached",
    async inject(rig, random, strength) {
      for (let i = 0; i < strength; i++) {
        const name = `parted_${between(random, 100_000, 999_999)}`;
        await parted(rig, name);
        await withDatabase(rig, (client) =>
          client.query(
            `TRUNCATE ${name}_1; ALTER TABLE ${name} DETACH PARTITION ${name}_2; DROP TABLE ${name}_3`,
          ),
        );
        await someKilled(rig, random);
        const told = (what: RegExp) => rig.captures.some(({ log }) => log.some((line) => what.test(line)));
        for (const what of [`${name}_1.* was truncated`, `${name}_2 was detached`, `${name}_3.* was dropped`])
          await eventually(() => told(new RegExp(what)), { what });
        // Back, with the row that was in it: nothing but a backfill brings that.
        await withDatabase(rig, (client) =>
          client.query(`ALTER TABLE ${name} ATTACH PARTITION ${name}_2 FOR VALUES FROM (2) TO (3)`),
        );
        await someKilled(rig, random);
        await heal(rig, [`public.${name}`]);
      }
      return 4 * strength;
    },
  },
];
