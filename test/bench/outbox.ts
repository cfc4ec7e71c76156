import pg from "pg";
import { outboxTableName } from "../../lib/definition/outbox-table.ts";
import { startEmbeddedPostgres } from "../../lib/local/embedded-postgres.ts";
import { type Outbox, outboxMessages, outboxTable } from "../../lib/publish/publish.ts";
import { relaySql } from "../../lib/publish/relay-sql.ts";
import { outboxTableSql } from "../../lib/publish/table-sql.ts";
import { runOutboxChecker } from "../../lib/testing/checker/outbox/checker.ts";
import { OUTBOX_FORMS, type OutboxForm } from "../../lib/testing/checker/outbox/pipeline.ts";
import type { Bench, BenchValues } from "./main.ts";

/**
 * What publishing adds to an application's transaction, and the three forms under kills: `--orders 10000` is what the
 * promise of exactly once is held against.
 */
export const outbox: Bench = {
  about:
    "The outbox in its three forms: what publishing costs a transaction; orders with rollbacks, capture killed in the middle.",
  options: {
    orders: { type: "string", default: "2000" },
    kills: { type: "string", default: "3" },
    seed: { type: "string", default: "1" },
    form: { type: "string" },
    transactions: { type: "string", default: "2000" },
  },
  async run(say, values) {
    const forms = values.form ? [values.form as OutboxForm] : OUTBOX_FORMS;
    const cost = await publishingCost(Number(values.transactions));
    for (const [what, microseconds] of Object.entries(cost)) say(`  ${what.padEnd(34)} ${microseconds} µs`);
    const latency: Record<string, object> = {};
    for (const form of forms) {
      const { latencyMs, ok, examples } = await runOutboxChecker({
        ...{ form, seed: 1, orders: 200, tasks: 1, kills: 0, perSecond: 40 },
      });
      if (!ok) throw new Error(examples.join("\n"));
      say(
        `  ${form}: commit to effect, median ${latencyMs.median} ms, p99 ${latencyMs.p99} ms at 40 transactions/s`,
      );
      latency[form] = latencyMs;
    }
    const trials: Record<string, object> = {};
    for (const form of forms) trials[form] = await trial(form, values, say);
    return { publishing: cost, latency, trials };
  },
};

async function trial(form: OutboxForm, values: BenchValues, say: (line: string) => void): Promise<object> {
  const tasks = form === "relay" ? 2 : 1;
  const { log, ...found } = await runOutboxChecker({
    ...{ form, tasks },
    orders: Number(values.orders),
    kills: Number(values.kills),
    seed: Number(values.seed),
    recoverMs: 180_000,
  });
  const {
    events,
    rolledBack,
    kills,
    lost,
    extra,
    duplicates,
    outOfOrder,
    repeated,
    seconds,
    secondsToRecover,
  } = found;
  say(
    `  ${form}: ${events} events of ${values.orders} orders, ${rolledBack} rolled back, ${tasks} task${tasks > 1 ? "s" : ""}, ${kills} × kill -9: ` +
      `${lost} lost, ${extra} extra, ${duplicates} twice, ${outOfOrder} out of order; ${repeated} came again and were passed; ` +
      `${Math.round(events / seconds)} events/s, all in effect ${secondsToRecover?.toFixed(1) ?? "never"} s after the last commit`,
  );
  if (!found.ok) throw new Error([...found.examples, ...log].join("\n"));
  return found;
}

/** Microseconds a transaction takes that updates one row, and publishes an event of about 200 bytes. */
async function publishingCost(transactions: number): Promise<Record<string, number>> {
  await using parts = new AsyncDisposableStack();
  const server = await startEmbeddedPostgres({ settings: { wal_level: "logical" } });
  parts.defer(() => server.stop("immediate"));
  const client = new pg.Client({ connectionString: server.url });
  await client.connect();
  parts.defer(() => client.end());
  const named = (table: string) => outboxTableName(`public.${table}`);
  await client.query(
    "CREATE TABLE orders (id int PRIMARY KEY, version int NOT NULL); INSERT INTO orders VALUES (1, 0)",
  );
  for (const sql of [...outboxTableSql(named("plain")), ...relaySql(named("relayed"), 64)])
    await client.query(sql);
  const ways: readonly (readonly [string, Outbox | undefined])[] = [
    ["no event", undefined],
    ["a row of the table", outboxTable({ table: "public.plain" })],
    ["a row, deleted at once", outboxTable({ table: "public.plain", deleteAtOnce: true })],
    ["a message", outboxMessages()],
    ["a row for relays", outboxTable({ table: "public.relayed" })],
  ];
  const cost: Record<string, number> = {};
  for (const [what, publisher] of ways) {
    const started = performance.now();
    for (let i = 0; i < transactions; i++) {
      await client.query("BEGIN");
      await client.query("UPDATE orders SET version = version + 1");
      const payload = { order: i, status: "paid", note: "x".repeat(150) };
      await publisher?.publish(client, {
        aggregateType: "order",
        aggregateId: String(i),
        type: "Paid",
        payload,
      });
      await client.query("COMMIT");
    }
    cost[what] = Math.round(((performance.now() - started) * 1000) / transactions);
  }
  return cost;
}
