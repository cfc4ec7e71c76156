import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import type { Outbox } from "../../publish/publish.ts";
import { between, type SeededRandom } from "./catalog.ts";
import { ShopSession, type TransactionOutcome } from "./session.ts";

/** Behaviour of the shop's customers. */
export interface ShopWorkloadOptions {
  readonly databaseUrl: string;
  /** Changes a second, over all connections; without it as fast as the database takes them. */
  readonly rate?: number;
  /** Ends when this many changes are committed (a transaction more at most); without it when aborted. */
  readonly changes?: number;
  readonly random: SeededRandom;
  /** Set: the shop publishes events, and they are what is counted. */
  readonly outbox?: Outbox | undefined;
  readonly signal: AbortSignal;
}

/** Counts of the workload so far; they grow while it runs. */
export interface WorkloadProgress {
  /** Change events that follow from what was committed: a key change gives two, a rollback none. */
  changes: number;
  commits: number;
  rollbacks: number;
}

const SESSIONS = 4;
const STARTING_CUSTOMERS = 25;

/** Largest number of orders in one transaction: a person's, and an application's that works in bulk. */
const GENTLE_ROWS = 3;
const BULK_ROWS = 60;

type ShopTransaction = (session: ShopSession, rows: number) => Promise<TransactionOutcome>;

/** Transactions with their weights: how often each happens among the others. */
const MIX: readonly (readonly [weight: number, transaction: ShopTransaction])[] = [
  [30, (session, rows) => session.placeOrders(rows)],
  [30, (session, rows) => session.advanceOrders(rows)],
  [12, (session, rows) => session.changeItems(rows)],
  [8, (session, rows) => session.archiveOrders(rows)],
  [6, (session) => session.updateCustomer()],
  [3, (session) => session.removeItem()],
  [3, (session) => session.cancelOrder()],
  [3, (session, rows) => session.giveUpOrders(rows)],
  [2, (session) => session.placeOrderOnSecondTry()],
  [2, (session) => session.registerCustomers(1)],
  [1, (session, rows) => session.importOrders(4 * rows)],
  [1.5, (session) => session.forgetCustomer()],
  [0.5, (session) => session.renumberOrder()],
  [0.3, (session) => session.renumberCustomer()],
];
const TOTAL_WEIGHT = MIX.reduce((sum, [weight]) => sum + weight, 0);

/**
 * Runs the shop on several connections until `changes` are committed or the signal aborts; a transaction under
 * way is finished first. `progress` is updated at each commit.
 */
export async function runWorkload(options: ShopWorkloadOptions, progress: WorkloadProgress): Promise<void> {
  const failure = new AbortController();
  const signal = AbortSignal.any([options.signal, failure.signal]);
  const pace = paceOf(options.rate);
  const sessions = Array.from({ length: SESSIONS }, () =>
    runSession({ ...options, signal }, progress, pace).catch((error: unknown) => {
      failure.abort(error);
      throw error;
    }),
  );
  await Promise.allSettled(sessions);
  await Promise.all(sessions);
}

async function runSession(
  options: ShopWorkloadOptions,
  progress: WorkloadProgress,
  pace: (changes: number) => number,
): Promise<void> {
  const { random, signal } = options;
  const client = new pg.Client({ connectionString: options.databaseUrl, application_name: "shop" });
  // An error outside a query (the server went away) fails the next query too, which reports it.
  client.on("error", () => {});
  await client.connect();
  try {
    const session = new ShopSession(client, random, options.outbox);
    count(progress, await session.registerCustomers(STARTING_CUSTOMERS));
    while (!signal.aborted) {
      const remaining = (options.changes ?? Number.POSITIVE_INFINITY) - progress.changes;
      if (remaining <= 0) return;
      const most = options.rate === undefined ? BULK_ROWS : GENTLE_ROWS;
      const rows = between(random, 1, Math.min(most, Math.ceil(remaining / SESSIONS)));
      const transaction = session.isFull ? archive : choose(random);
      const outcome = await transaction(session, rows);
      count(progress, outcome);
      const waitMs = pace(outcome.changes);
      if (waitMs > 0) await delay(waitMs, undefined, { signal }).catch(() => undefined);
    }
  } finally {
    await client.end();
  }
}

const archive: ShopTransaction = (session, rows) => session.archiveOrders(4 * rows);

function choose(random: SeededRandom): ShopTransaction {
  let point = random() * TOTAL_WEIGHT;
  for (const [weight, transaction] of MIX) {
    point -= weight;
    if (point < 0) return transaction;
  }
  return archive;
}

function count(progress: WorkloadProgress, outcome: TransactionOutcome): void {
  progress.changes += outcome.changes;
  if (outcome.committed) progress.commits++;
  else progress.rollbacks++;
}

/**
 * Tells after each transaction how long to wait so that all sessions together keep the rate. Time lost (a slow
 * machine) is not caught up by more than a second.
 */
function paceOf(rate: number | undefined): (changes: number) => number {
  if (rate === undefined) return () => 0;
  let due = performance.now();
  return (changes) => {
    const now = performance.now();
    due = Math.max(due, now - 1000) + (Math.max(changes, 0.2) * 1000) / rate;
    return due - now;
  };
}
