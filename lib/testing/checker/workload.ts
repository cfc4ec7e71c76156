import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { from as copyFrom } from "pg-copy-streams";
import { between, oneOf, type SeededRandom, seededRandom } from "../../local/shop/catalog.ts";

/** Settings of `runWorkload`. */
export interface WorkloadOptions {
  /** A database with `CHECKED_SCHEMA`, reached without any fault proxy. */
  readonly databaseUrl: string;
  readonly seed: number;
  /** Connections that work side by side. Default 3. */
  readonly clients?: number;
  /** Row changes to commit at least; the truth is read from the server. */
  readonly changes: number;
  /** Goes on until this aborts, too. */
  readonly until?: AbortSignal;
  /** Row changes a second at most, about. Default: as many as go. */
  readonly changesPerSecond?: number;
  readonly signal: AbortSignal;
}

/** Counts of the clients' transactions, as far as they know. */
export interface WorkloadSummary {
  readonly committed: number;
  readonly rolledBack: number;
  /** Transactions that ended in an error: a deadlock, a key that was there, a server that went away. */
  readonly failed: number;
}

const HOT_KEYS = 40;
const COLD_KEYS = 4_000;
/** Longer than the 2 KB from which PostgreSQL stores a value apart. */
const TOASTED = 6_000;
const RECONNECT_DEADLINE_MS = 120_000;

type Step = (client: pg.Client, random: SeededRandom, tag: () => string) => Promise<number>;

/**
 * Runs random transactions of 1 to 1,000 row changes: inserts, updates, deletes, keys that change, rows deleted and
 * inserted again, values stored apart, COPY, truncates, rollbacks and savepoints. The same seed gives each client the same
 * choices; how the clients interleave is up to the server. A client whose server goes away comes back.
 */
export async function runWorkload(options: WorkloadOptions): Promise<WorkloadSummary> {
  const count = options.clients ?? 3;
  const total = { committed: 0, rolledBack: 0, failed: 0, changes: 0, startedAt: performance.now() };
  await Promise.all(
    Array.from({ length: count }, (_, i) =>
      runClient(
        options,
        i,
        total,
        () => total.changes >= options.changes && (options.until?.aborted ?? true),
      ),
    ),
  );
  return { committed: total.committed, rolledBack: total.rolledBack, failed: total.failed };
}

async function runClient(
  options: WorkloadOptions,
  number: number,
  total: { committed: number; rolledBack: number; failed: number; changes: number; startedAt: number },
  done: () => boolean,
): Promise<void> {
  const random = seededRandom(options.seed * 1000 + number);
  let serial = 0;
  const tag = () => `${number}-${++serial}`;
  let client: pg.Client | undefined;
  try {
    while (!done() && !options.signal.aborted) {
      try {
        client ??= await connect(options);
        const outcome = await transaction(client, random, tag);
        if (outcome.committed) {
          total.committed++;
          total.changes += outcome.changes;
        } else total.rolledBack++;
      } catch {
        // Whether it was committed only the server knows, and the truth is read from there.
        total.failed++;
        if (client) client = await recover(client);
      }
      const { changesPerSecond = Number.POSITIVE_INFINITY } = options;
      const dueAt = total.startedAt + (1000 * total.changes) / changesPerSecond;
      // In short steps, so that it ends soon after the faults.
      while (performance.now() < dueAt && !done()) await delay(20);
    }
  } finally {
    await client?.end().catch(() => {});
  }
}

async function connect(options: WorkloadOptions): Promise<pg.Client> {
  const deadline = performance.now() + RECONNECT_DEADLINE_MS;
  for (;;) {
    options.signal.throwIfAborted();
    const client = new pg.Client({ connectionString: options.databaseUrl, connectionTimeoutMillis: 10_000 });
    client.on("error", () => {});
    try {
      await client.connect();
      // Two clients that meet on a row must not wait for ever on one whose link is gone.
      await client.query("SET lock_timeout = '10s'; SET statement_timeout = '60s'");
      // Clients meet often, by design. Only a superuser may ask for deadlocks to be found sooner.
      await client.query("SET deadlock_timeout = '50ms'").catch(() => {});
      return client;
    } catch (error) {
      await client.end().catch(() => {});
      if (performance.now() > deadline) throw error;
      await delay(100);
    }
  }
}

/** The client, out of its failed transaction, or undefined where it is gone. */
async function recover(client: pg.Client): Promise<pg.Client | undefined> {
  try {
    await client.query("ROLLBACK");
    return client;
  } catch {
    await client.end().catch(() => {});
    return undefined;
  }
}

async function transaction(
  client: pg.Client,
  random: SeededRandom,
  tag: () => string,
): Promise<{ committed: boolean; changes: number }> {
  const style = random();
  const steps = style < 0.6 ? between(random, 1, 4) : style < 0.97 ? between(random, 5, 30) : 100;
  let changes = 0;
  await client.query("BEGIN");
  for (let i = 0; i < steps; i++) {
    const step = chooseStep(random);
    if (random() < 0.1) {
      await client.query("SAVEPOINT attempt");
      const inside = await step(client, random, tag);
      const keep = random() < 0.5;
      await client.query(keep ? "RELEASE SAVEPOINT attempt" : "ROLLBACK TO SAVEPOINT attempt");
      changes += keep ? inside : 0;
    } else changes += await step(client, random, tag);
    if (changes > 1000) break;
  }
  const committed = random() >= 0.08;
  await client.query(committed ? "COMMIT" : "ROLLBACK");
  return { committed, changes };
}

const STEPS: readonly [weight: number, step: Step][] = [
  [30, upsertAccount],
  [20, updateAccount],
  [8, deleteAccount],
  [4, deleteAndInsertAccount],
  [4, changeAccountKey],
  [4, changeLargeAccountKey],
  [30, upsertOrder],
  [6, moveOrder],
  [6, deleteOrder],
  [16, upsertParts],
  [4, renamePart],
  [5, deleteParts],
  [10, insertJournal],
  [2, copyJournal],
  [10, upsertArchive],
  [0.25, truncateJournal],
  [0.12, truncateAccounts],
];
const WEIGHT = STEPS.reduce((sum, [weight]) => sum + weight, 0);

function chooseStep(random: SeededRandom): Step {
  let at = random() * WEIGHT;
  for (const [weight, step] of STEPS) {
    at -= weight;
    if (at < 0) return step;
  }
  return upsertAccount;
}

const key = (random: SeededRandom) =>
  random() < 0.3 ? between(random, 1, HOT_KEYS) : between(random, 1, COLD_KEYS);
const note = (random: SeededRandom, v: string) =>
  random() < 0.15 ? `${v} `.padEnd(TOASTED, "note ") : `note ${v}`;

async function rows(client: pg.Client, text: string, values: unknown[]): Promise<number> {
  return (await client.query(text, values)).rowCount ?? 0;
}

async function upsertAccount(client: pg.Client, random: SeededRandom, tag: () => string): Promise<number> {
  const v = tag();
  return rows(
    client,
    `INSERT INTO accounts VALUES ($1, $2, $3, $4)
     ON CONFLICT (id) DO UPDATE SET v = excluded.v, name = excluded.name, note = excluded.note`,
    [key(random), v, `name ${v}`, note(random, v)],
  );
}

/** Leaves `note` alone: where it is stored apart its value does not travel. */
async function updateAccount(client: pg.Client, random: SeededRandom, tag: () => string): Promise<number> {
  return rows(client, "UPDATE accounts SET v = $2 WHERE id BETWEEN $1 AND $1 + 2", [key(random), tag()]);
}

async function deleteAccount(client: pg.Client, random: SeededRandom): Promise<number> {
  return rows(client, "DELETE FROM accounts WHERE id = $1", [key(random)]);
}

async function deleteAndInsertAccount(
  client: pg.Client,
  random: SeededRandom,
  tag: () => string,
): Promise<number> {
  const id = key(random);
  const v = tag();
  const gone = await rows(client, "DELETE FROM accounts WHERE id = $1", [id]);
  await rows(client, "INSERT INTO accounts VALUES ($1, $2, 'again', $3)", [id, v, note(random, v)]);
  return gone + 1;
}

async function changeAccountKey(client: pg.Client, random: SeededRandom, tag: () => string): Promise<number> {
  const [from, to, v] = [key(random), key(random), tag()];
  return (
    2 *
    (await rows(
      client,
      `UPDATE accounts SET id = $2, v = $3, note = $4
       WHERE id = $1 AND NOT EXISTS (SELECT FROM accounts WHERE id = $2)`,
      [from, to, v, note(random, v)],
    ))
  );
}

/** Leaves `note`, which is stored apart: it does not travel, and under the new key nobody knows it. */
async function changeLargeAccountKey(
  client: pg.Client,
  random: SeededRandom,
  tag: () => string,
): Promise<number> {
  return (
    2 *
    (await rows(
      client,
      `UPDATE accounts SET id = $2, v = $3
       WHERE id = (SELECT min(id) FROM accounts WHERE id >= $1 AND octet_length(note) > $4)
         AND NOT EXISTS (SELECT FROM accounts WHERE id = $2)`,
      [key(random), key(random), tag(), TOASTED / 2],
    ))
  );
}

async function upsertOrder(client: pg.Client, random: SeededRandom, tag: () => string): Promise<number> {
  const v = tag();
  return rows(
    client,
    `INSERT INTO orders VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO UPDATE SET v = excluded.v`,
    [key(random), between(random, 1, 60), v, note(random, v)],
  );
}

/** To another customer: to another partition. */
async function moveOrder(client: pg.Client, random: SeededRandom, tag: () => string): Promise<number> {
  return rows(client, "UPDATE orders SET customer_id = $2, v = $3 WHERE id = $1", [
    key(random),
    between(random, 1, 60),
    tag(),
  ]);
}

async function deleteOrder(client: pg.Client, random: SeededRandom): Promise<number> {
  return rows(client, "DELETE FROM orders WHERE id BETWEEN $1 AND $1 + 1", [key(random)]);
}

const ASSEMBLIES = ["bolt", 'odd "name"', "ünïcode ☃", "a\tb", "", "long ".repeat(40)] as const;

async function upsertParts(client: pg.Client, random: SeededRandom, tag: () => string): Promise<number> {
  return rows(
    client,
    `INSERT INTO parts SELECT $1, i, $3, i FROM generate_series($2::int, $2::int + $4::int) AS i
     ON CONFLICT (assembly, part) DO UPDATE SET v = excluded.v`,
    [
      oneOf(random, ASSEMBLIES),
      between(random, 1, 100),
      tag(),
      random() < 0.02 ? 500 : between(random, 0, 5),
    ],
  );
}

async function renamePart(client: pg.Client, random: SeededRandom, tag: () => string): Promise<number> {
  return rows(
    client,
    `UPDATE parts p SET assembly = $2, v = $4 WHERE assembly = $1 AND part = $3
     AND NOT EXISTS (SELECT FROM parts q WHERE q.assembly = $2 AND q.part = p.part)`,
    [oneOf(random, ASSEMBLIES), oneOf(random, ASSEMBLIES), between(random, 1, 100), tag()],
  );
}

async function deleteParts(client: pg.Client, random: SeededRandom): Promise<number> {
  return rows(client, "DELETE FROM parts WHERE assembly = $1 AND part BETWEEN $2 AND $2 + 3", [
    oneOf(random, ASSEMBLIES),
    between(random, 1, 100),
  ]);
}

async function insertJournal(client: pg.Client, random: SeededRandom, tag: () => string): Promise<number> {
  const v = tag();
  return rows(client, "INSERT INTO journal VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", [
    between(random, 1, 1_000_000_000),
    v,
    `line ${v}`,
  ]);
}

async function copyJournal(client: pg.Client, random: SeededRandom, tag: () => string): Promise<number> {
  const count = random() < 0.2 ? between(random, 200, 900) : between(random, 2, 60);
  const start = between(random, 1, 2_000_000) * 1000;
  const copy = client.query(copyFrom("COPY journal FROM STDIN"));
  const ended = once(copy, "finish");
  copy.end(Array.from({ length: count }, (_, i) => `${start + i}\t${tag()}\tcopied\n`).join(""));
  await ended;
  return count;
}

async function upsertArchive(client: pg.Client, random: SeededRandom, tag: () => string): Promise<number> {
  const v = tag();
  return rows(
    client,
    "INSERT INTO archive.accounts VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET v = excluded.v",
    [key(random), v, `archived ${v}`],
  );
}

async function truncateJournal(client: pg.Client): Promise<number> {
  await client.query("TRUNCATE journal");
  return 1;
}

/** Two tables in one statement: one message, two changes. */
async function truncateAccounts(client: pg.Client): Promise<number> {
  await client.query("TRUNCATE accounts, archive.accounts");
  return 2;
}
