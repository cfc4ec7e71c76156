import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { startEmbeddedPostgres } from "../../lib/local/embedded-postgres.ts";
import { outboxPlan } from "../../lib/outbox/install.ts";
import { type Outbox, outboxTable } from "../../lib/outbox/publish.ts";
import { type Pipeline, polling, postgres, triggers } from "../../lib/pipeline.ts";
import { auditSchemaSql, tableTriggersSql } from "../../lib/source/trigger/audit-sql.ts";
import { definitionOf, TablesReading } from "../postgres/tables-source.ts";
import { cpuSeconds, usedBetween } from "./cpu.ts";
import { type Latency, percentiles } from "./latency/commits.ts";
import type { Bench } from "./main.ts";
import { median } from "./triggers.ts";

const NAMES = ["log", "triggers", "polling", "outbox"] as const;
type Name = (typeof NAMES)[number];

const SCHEMA = `CREATE TABLE orders (id bigint PRIMARY KEY, status text NOT NULL, note text,
  updated_at timestamptz NOT NULL DEFAULT now()); CREATE INDEX ON orders (updated_at, id)`;
const NOTE = "Please leave the parcel with the neighbour on the second floor; the bell does not work.";
const COMMITS_A_SECOND = 50;

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
    return { pipeline, install: outboxPlan(pipeline)?.install ?? [], outbox: outboxTable() };
  },
};

/** The four approaches side by side, read by the capture task's own code without the stream behind it. */
export const sources: Bench = {
  about:
    "Four approaches side by side: what they add to a transaction, from commit to event, and what they ask of the database.",
  options: {
    transactions: { type: "string", default: "500" },
    rounds: { type: "string", default: "3" },
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
      await client.query("CREATE TABLE bare AS TABLE orders; ALTER TABLE bare ADD PRIMARY KEY (id)");
      if (name === "polling") {
        await client.query(
          "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.updated_at := now(); RETURN NEW; END $$; CREATE TRIGGER touch BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION touch()",
        );
      } else await client.query("DROP INDEX orders_updated_at_id_idx");
      for (const sql of install) await client.query(sql);
      const reading = await TablesReading.open(server.url, pipeline);
      parts.defer(() => reading.close());

      const overhead = await overheadOf(client, outbox, Number(values.transactions), Number(values.rounds));
      const idle = await idleCpu(seconds);
      const busy = await latencyOf(client, reading, outbox, seconds);
      found[name] = { ...overhead, ...idle, ...busy };
      say(
        `  ${name.padEnd(9)} a transaction ${overhead.plainUs} µs without, ${overhead.caughtUs} with (× ${overhead.ratio}); ` +
          `commit to event p50 ${busy.latency.p50Ms} ms, p99 ${busy.latency.p99Ms}; ` +
          `PostgreSQL's CPU idle ${idle.idleCpuMsASecond} ms/s, at ${COMMITS_A_SECOND} commits/s ${busy.cpuMsASecond}`,
      );
    }
    return found;
  },
};

/** An update of one row in a transaction of its own, in a table that nothing catches and in the one that is caught. */
async function overheadOf(
  client: pg.Client,
  outbox: Outbox | undefined,
  transactions: number,
  rounds: number,
): Promise<{ readonly plainUs: number; readonly caughtUs: number; readonly ratio: number }> {
  for (const table of ["bare", "orders"])
    await client.query(
      `INSERT INTO ${table} SELECT i, 'placed', '${NOTE}', now() FROM generate_series(1, 1000) i`,
    );
  const timeOf = async (table: string, publisher: Outbox | undefined) => {
    const started = performance.now();
    for (let i = 0; i < transactions; i++) {
      await client.query("BEGIN");
      await client.query(`UPDATE ${table} SET status = 'paid ${i}' WHERE id = ${1 + (i % 1000)}`);
      await publisher?.publish(client, event(i));
      await client.query("COMMIT");
    }
    return ((performance.now() - started) * 1000) / transactions;
  };
  const times: { plain: number; caught: number }[] = [];
  for (let round = 0; round < rounds; round++) {
    const plain = await timeOf("bare", undefined);
    times.push({ plain, caught: await timeOf("orders", outbox) });
  }
  return {
    plainUs: Math.round(median(times.map(({ plain }) => plain))),
    caughtUs: Math.round(median(times.map(({ caught }) => caught))),
    ratio: Number(median(times.map(({ plain, caught }) => caught / plain)).toFixed(2)),
  };
}

async function idleCpu(seconds: number): Promise<{ readonly idleCpuMsASecond: number }> {
  await delay(2000);
  return { idleCpuMsASecond: await postgresCpu(() => delay(seconds * 1000), seconds) };
}

/** One commit after the other at a steady rate; when the client knew of each, and when its event was there. */
async function latencyOf(
  client: pg.Client,
  reading: TablesReading,
  outbox: Outbox | undefined,
  seconds: number,
): Promise<{ readonly latency: Latency; readonly cpuMsASecond: number }> {
  const committedAt = new Map<string, number>();
  const seenAt = new Map<string, number>();
  let from = reading.messages.length;
  const watch = setInterval(() => {
    for (; from < reading.messages.length; from++) {
      const message = reading.messages[from];
      const id = message?.kind === "change" ? /mark-(\d+)/.exec(message.json)?.[1] : undefined;
      if (id !== undefined && !seenAt.has(id)) seenAt.set(id, performance.now());
    }
  }, 1);
  const begun = performance.now();
  const cpuMsASecond = await postgresCpu(async () => {
    for (let i = 0; i < COMMITS_A_SECOND * seconds; i++) {
      await delay(Math.max(0, begun + (i * 1000) / COMMITS_A_SECOND - performance.now()));
      const id = 1_000_000 + i;
      await client.query("BEGIN");
      await client.query(`INSERT INTO orders VALUES (${id}, 'mark-${id}', '${NOTE}')`);
      await outbox?.publish(client, event(id));
      await client.query("COMMIT");
      committedAt.set(String(id), performance.now());
    }
  }, seconds);
  const deadline = performance.now() + 30_000;
  while ([...committedAt.keys()].some((id) => !seenAt.has(id)) && performance.now() < deadline)
    await delay(20);
  clearInterval(watch);
  const latencies = [...committedAt].map(([id, at]) => (seenAt.get(id) ?? Number.NaN) - at);
  if (latencies.some(Number.isNaN)) throw new Error("not every commit became an event");
  return { latency: percentiles(latencies), cpuMsASecond };
}

function event(i: number) {
  return {
    aggregateType: "order",
    aggregateId: String(i % 100),
    type: "Paid",
    payload: { mark: `mark-${i}`, note: NOTE },
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
