import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { passHold } from "../../lib/admin/hold-passage.ts";
import { dynamodbClient } from "../../lib/aws/clients.ts";
import { parseLsn } from "../../lib/change/lsn.ts";
import { formatPosition, parsePosition } from "../../lib/change/position.ts";
import { between, type SeededRandom } from "../../lib/local/shop/catalog.ts";
import { requireLog } from "../../lib/source/postgres/definition.ts";
import { readBackfill } from "../../lib/state/backfills.ts";
import { readHolds, wantRelease } from "../../lib/state/holds.ts";
import type { Rig } from "../../lib/testing/checker/rig.ts";
import { eventually } from "../eventually.ts";
import { type Fault, streaming } from "./faults.ts";

async function inDatabase(rig: Rig, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: rig.databaseUrl });
  await client.connect();
  try {
    await client.query(sql);
  } finally {
    await client.end();
  }
}

async function logEnd(rig: Rig): Promise<bigint> {
  const client = new pg.Client({ connectionString: rig.databaseUrl });
  await client.connect();
  try {
    const { rows } = await client.query<{ lsn: string }>("SELECT pg_current_wal_lsn()::text AS lsn");
    return parseLsn(rows[0]?.lsn ?? "0/0");
  } finally {
    await client.end();
  }
}

/** What is found while it runs, or when it starts: some tasks are killed. */
async function someKilled(rig: Rig, random: SeededRandom): Promise<void> {
  for (const capture of rig.captures) {
    if (random() < 0.5) continue;
    await delay(between(random, 0, 1_500));
    capture.kill();
  }
}

/**
 * Waits until a topic is held, and releases it as an operator does: once consumers have passed what stands before. What may be
 * held again (a release that was cut off, a look that came late) is released again, until the table was read anew.
 */
async function release(rig: Rig, random: SeededRandom, table: string, code: string): Promise<void> {
  const dynamodb = dynamodbClient(rig.aws.environment);
  const signal = AbortSignal.timeout(10 * 60_000);
  const store = { dynamodb, table: rig.resources.stateTable, pipeline: rig.definition.name, signal };
  const definition = requireLog(rig.definition, "the fault");
  const read = async () => (await readHolds(store)).filter(({ reason }) => reason.table === table);
  const since = Date.now();
  try {
    const found = await eventually(async () => (await read())[0], {
      what: `${table} to be held`,
      deadlineMs: 120_000,
    });
    if (found.reason.code !== code)
      throw new Error(`${table} is held for ${found.reason.code}, not for ${code}`);
    // Changes come meanwhile, and are held.
    await delay(between(random, 0, 2_000));
    await eventually(
      async () => {
        for (const hold of await read()) {
          if (hold.released) continue;
          if ((await passHold(store, definition, hold, 60_000)).length > 0) continue;
          await wantRelease(store, hold.topic).catch(() => {});
          if (random() < 0.3) rig.captures[0]?.kill();
        }
        const backfill = await readBackfill(store, table);
        const isRead =
          backfill?.status === "done" && backfill.request.sweep && backfill.request.requestedAt >= since;
        return isRead && (await read()).length === 0;
      },
      { what: `${table} to be released and read anew`, deadlineMs: 240_000 },
    );
    // What was held is durable where it was held, before Kinesis has it.
    const to = formatPosition({
      epoch: parsePosition(found.from).epoch,
      commitLsn: await logEnd(rig),
      ordinal: 0,
    });
    rig.confirmations.excuse(found.topic, found.from, to);
  } finally {
    dynamodb.destroy();
  }
}

/** Another table takes the name of one, with its rows, and is published from that commit on: as online schema changes do it. */
const swapSql = (away: string) => `
  BEGIN;
  LOCK TABLE journal IN ACCESS EXCLUSIVE MODE;
  CREATE SCHEMA ${away};
  CREATE SCHEMA ${away}_next;
  CREATE TABLE ${away}_next.journal (LIKE public.journal INCLUDING ALL);
  INSERT INTO ${away}_next.journal SELECT * FROM public.journal;
  ALTER TABLE public.journal SET SCHEMA ${away};
  ALTER TABLE ${away}_next.journal SET SCHEMA public;
  DO $$ DECLARE p text; BEGIN
    FOR p IN SELECT pubname FROM pg_publication JOIN pg_publication_rel ON prpubid = pg_publication.oid
              WHERE prrelid = '${away}.journal'::regclass LOOP
      EXECUTE format('ALTER PUBLICATION %I ADD TABLE ONLY public.journal', p);
    END LOOP;
  END $$;
  COMMIT`;

/** Tables that are other ones, by other keys, in the middle of everything. */
export const IDENTITY_FAULTS: readonly Fault[] = [
  {
    name: "table swapped",
    async inject(rig, random, strength) {
      for (let i = 0; i < strength; i++) {
        for (const capture of rig.captures) await streaming(capture);
        const away = `away_${between(random, 100_000, 999_999)}`;
        await inDatabase(rig, swapSql(away));
        await someKilled(rig, random);
        await release(rig, random, "public.journal", "TABLE_REPLACED");
        await inDatabase(rig, `DROP SCHEMA ${away}, ${away}_next CASCADE`);
      }
      return strength;
    },
  },
  {
    name: "primary key replaced",
    async inject(rig, random, strength) {
      const journal = (key: string) =>
        `ALTER TABLE journal DROP CONSTRAINT journal_pkey, ADD PRIMARY KEY (${key})`;
      const parts = (type: string) =>
        `ALTER TABLE parts DROP CONSTRAINT parts_pkey, ALTER assembly TYPE ${type}, ADD PRIMARY KEY (assembly, part)`;
      for (let i = 0; i < strength; i++) {
        for (const capture of rig.captures) await streaming(capture);
        // No row comes twice: its partition may be another one.
        for (const key of ["id, v", "id"]) {
          await inDatabase(rig, journal(key));
          await someKilled(rig, random);
          await release(rig, random, "public.journal", "KEY_CHANGED");
        }
        // Rows that are written all the time, by a key whose text stays.
        for (const type of ["varchar", "text"]) {
          await inDatabase(rig, parts(type));
          await someKilled(rig, random);
          await release(rig, random, "public.parts", "KEY_CHANGED");
        }
      }
      return 4 * strength;
    },
  },
];
