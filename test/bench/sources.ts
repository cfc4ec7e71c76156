import { loadavg } from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import type { SourceMessage, SourcePlace } from "../../lib/change/change-stream.ts";
import { type Pipeline, polling, postgres, triggers } from "../../lib/definition/pipeline.ts";
import { startEmbeddedPostgres } from "../../lib/local/embedded-postgres.ts";
import { type Outbox, outboxTable } from "../../lib/publish/publish.ts";
import { sourceKind } from "../../lib/source/index.ts";
import { auditSchemaSql, tableTriggersSql } from "../../lib/source/triggers/audit-sql.ts";
import { definitionOf, TablesReading } from "../postgres/tables-source.ts";
import { cpuSeconds, usedBetween } from "./cpu.ts";
import { percentiles } from "./latency/commits.ts";
import type { Bench } from "./main.ts";
import { median } from "./triggers.ts";

const NAMES = ["log", "triggers", "polling", "outbox"] as const;
type Name = (typeof NAMES)[number];

const SCHEMA = `CREATE TABLE orders (id bigint PRIMARY KEY, status text NOT NULL, note text,
  updated_at timestamptz NOT NULL DEFAULT now()); CREATE INDEX ON orders (updated_at, id)`;
const NOTE = "Please leave the parcel with the neighbour on the second floor; the bell does not work.";
const COMMITS_A_SECOND = 50;
/** The table that nothing catches. */
const BARE = "bare";

interface Approach {
  readonly pipeline: Pipeline;
  /** Statements beside the table's own. */
  readonly install: readonly string[];
  readonly outbox: Outbox | undefined;
}

const APPROACHES: Readonly<Record<Name, () => Approach>> = {
  log: () => ({
    pipeline: definitionOf(
      postgres({ tables: ["public.orders"], acceptUnboundedWal: true, snapshot: "never" }),
    ),
    install: [],
    outbox: undefined,
  }),
  triggers: () => ({
    pipeline: definitionOf(triggers({ tables: ["public.orders"] })),
    install: [
      ...auditSchemaSql("tributary"),
      ...tableTriggersSql("tributary", { schema: "public", table: "orders" }),
    ],
    outbox: undefined,
  }),
  polling: () => ({
    pipeline: definitionOf(polling({ tables: ["public.orders"] })),
    install: [],
    outbox: undefined,
  }),
  outbox: () => {
    const pipeline = definitionOf(
      postgres({
        tables: [],
        outbox: { table: "public.outbox" },
        acceptUnboundedWal: true,
        snapshot: "never",
      }),
    );
    return {
      pipeline,
      install: sourceKind(pipeline.source).outbox(pipeline)?.install ?? [],
      outbox: outboxTable(),
    };
  },
};

/** The four approaches side by side, read by the capture task's own code without the stream behind it. */
export const sources: Bench = {
  about:
    "Four approaches side by side: what they add to a transaction, from commit to event, and what they ask of the database.",
  options: {
    transactions: { type: "string", default: "500" },
    rounds: { type: "string", default: "5" },
    seconds: { type: "string", default: "8" },
  },
  async run(say, values) {
    const seconds = Number(values.seconds);
    const found: Record<string, object> = {};
    for (const name of NAMES) {
      await using parts = new AsyncDisposableStack();
      const server = await startEmbeddedPostgres({ durable: true, settings: { wal_level: "logical" } });
      parts.defer(() => server.stop("immediate"));
      const client = new pg.Client({ connectionString: server.url });
      await client.connect();
      parts.defer(() => client.end());
      const { pipeline, install, outbox } = APPROACHES[name]();
      await client.query(SCHEMA);
      await client.query(`CREATE TABLE ${BARE} AS TABLE orders; ALTER TABLE ${BARE} ADD PRIMARY KEY (id)`);
      if (name === "polling") {
        await client.query(
          "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.updated_at := now(); RETURN NEW; END $$; CREATE TRIGGER touch BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION touch()",
        );
      } else await client.query("DROP INDEX orders_updated_at_id_idx");
      for (const sql of install) await client.query(sql);
      const reading = await TablesReading.open(server.url, pipeline);
      parts.defer(() => reading.close());

      for (const table of [BARE, "orders"])
        await client.query(
          `INSERT INTO ${table} SELECT i, 'placed', '${NOTE}', now() FROM generate_series(1, 1000) i`,
        );
      const subject = { client, reading, outbox };
      const write = await overheadOf(subject, Number(values.transactions), Number(values.rounds));
      await delay(2000);
      const idleCpuMsASecond = await postgresCpu(() => delay(seconds * 1000), seconds);
      const busy = await latencyOf(subject, seconds);
      found[name] = { ...write, ...busy, idleCpuMsASecond };
      say(
        `  ${name.padEnd(9)} a transaction ${write.plainUs} µs without, ${write.caughtUs} with (× ${write.ratio}), ` +
          `its log ${write.plainWalBytes} and ${write.caughtWalBytes} B; ` +
          `commit to event p50 ${busy.latency.p50Ms} ms, p99 ${busy.latency.p99Ms}; ` +
          `PostgreSQL's CPU idle ${idleCpuMsASecond} ms/s, at ${COMMITS_A_SECOND} commits/s ${busy.plainCpuMsASecond} without, ${busy.caughtCpuMsASecond} with`,
      );
    }
    return { ...found, load: loadavg()[0] };
  },
};

/** What is measured: one connection of an application, and the source that reads behind it. */
interface Subject {
  readonly client: pg.Client;
  readonly reading: TablesReading;
  readonly outbox: Outbox | undefined;
}

/**
 * An update of one row in a transaction of its own, in a table that nothing catches and in the one that is caught, in
 * turn and not always in the same one. A loop begins when the source has read what the one before it wrote.
 */
async function overheadOf({ client, reading, outbox }: Subject, transactions: number, rounds: number) {
  const loop = async (table: string, publisher: Outbox | undefined, round: number) => {
    const before = await insertLsn(client);
    const started = performance.now();
    for (let i = 0; i < transactions; i++) {
      await client.query("BEGIN");
      await client.query(
        `UPDATE ${table} SET status = '${mark(`${round}_${i}`)}' WHERE id = ${1 + (i % 1000)}`,
      );
      await publisher?.publish(client, event(`${round}_${i}`));
      await client.query("COMMIT");
    }
    const us = ((performance.now() - started) * 1000) / transactions;
    return { us, walBytes: ((await insertLsn(client)) - before) / transactions };
  };
  const times: Record<"plain" | "caught", { us: number; walBytes: number }>[] = [];
  let from = reading.messages.length;
  for (let round = 0; round < rounds; round++) {
    const plain = round % 2 === 0 ? await loop(BARE, undefined, round) : undefined;
    const caught = await loop("orders", outbox, round);
    const last = mark(`${round}_${transactions - 1}`);
    await until(() => {
      const seen = reading.messages.slice(from).some((message) => markOf(message) === last);
      if (!seen) from = reading.messages.length;
      return seen;
    });
    times.push({ caught, plain: plain ?? (await loop(BARE, undefined, round)) });
  }
  const whole = (of: (time: (typeof times)[number]) => number) => Math.round(median(times.map(of)));
  return {
    plainUs: whole(({ plain }) => plain.us),
    caughtUs: whole(({ caught }) => caught.us),
    ratio: Number(median(times.map(({ plain, caught }) => caught.us / plain.us)).toFixed(2)),
    plainWalBytes: whole(({ plain }) => plain.walBytes),
    caughtWalBytes: whole(({ caught }) => caught.walBytes),
  };
}

async function insertLsn(client: pg.Client): Promise<number> {
  const { rows } = await client.query("SELECT (pg_current_wal_insert_lsn() - '0/0')::float8 AS bytes");
  return rows[0].bytes;
}

/**
 * One commit after the other at a steady rate, first into the table that nothing catches, then into the one that is
 * caught: what PostgreSQL spends on each, and when the client knew of a commit and its event was there.
 */
async function latencyOf({ client, reading, outbox }: Subject, seconds: number) {
  const committedAt = new Map<string, number>();
  const commit = async (table: string, publisher: Outbox | undefined) => {
    const begun = performance.now();
    for (let i = 0; i < COMMITS_A_SECOND * seconds; i++) {
      await delay(Math.max(0, begun + (i * 1000) / COMMITS_A_SECOND - performance.now()));
      const id = 1_000_000 + i;
      await client.query("BEGIN");
      await client.query(`INSERT INTO ${table} VALUES (${id}, '${mark(`${id}`)}', '${NOTE}', now())`);
      await publisher?.publish(client, event(`${id}`));
      await client.query("COMMIT");
      committedAt.set(mark(`${id}`), performance.now());
    }
  };
  const plainCpuMsASecond = await postgresCpu(() => commit(BARE, undefined), seconds);
  committedAt.clear();
  const seenAt = new Map<string, number>();
  let from = reading.messages.length;
  const watch = setInterval(() => {
    for (; from < reading.messages.length; from++) {
      const seen = markOf(reading.messages[from]);
      if (seen !== undefined && !seenAt.has(seen)) seenAt.set(seen, performance.now());
    }
  }, 1);
  const caughtCpuMsASecond = await postgresCpu(() => commit("orders", outbox), seconds);
  await until(() => [...committedAt.keys()].every((id) => seenAt.has(id)));
  clearInterval(watch);
  const latency = percentiles([...committedAt].map(([id, at]) => (seenAt.get(id) ?? Number.NaN) - at));
  return { latency, plainCpuMsASecond, caughtCpuMsASecond };
}

/** Stands in the row and in the outbox's event, so that a change is known again. */
function mark(which: string): string {
  return `mark-${which}`;
}

/** The last one: before the new row stands the old one. */
function markOf(message: SourceMessage<SourcePlace> | undefined): string | undefined {
  return message?.kind === "change" ? message.json.match(/mark-\w+/g)?.at(-1) : undefined;
}

async function until(seen: () => boolean): Promise<void> {
  const deadline = performance.now() + 30_000;
  while (!seen()) {
    if (performance.now() > deadline) throw new Error("not every commit became an event in 30 s");
    await delay(20);
  }
}

function event(which: string) {
  return {
    aggregateType: "order",
    aggregateId: which.slice(-2),
    type: "Paid",
    payload: { mark: mark(which), note: NOTE },
  };
}

/** Milliseconds of CPU a second that PostgreSQL's processes used meanwhile. */
async function postgresCpu(work: () => Promise<unknown>, seconds: number): Promise<number> {
  const before = cpuSeconds();
  await work();
  const used = usedBetween(before, cpuSeconds());
  const postgres = used.filter(([part]) => /postgres/i.test(part));
  return Math.round((1000 * postgres.reduce((sum, [, used]) => sum + used, 0)) / seconds);
}
