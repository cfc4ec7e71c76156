import { performance } from "node:perf_hooks";
import pg from "pg";
import { startEmbeddedPostgres } from "../../lib/local/embedded-postgres.ts";
import { auditSchemaSql, tableTriggersSql } from "../../lib/source/triggers/audit-sql.ts";
import type { Bench } from "./main.ts";

const TABLE = `(id bigint PRIMARY KEY, customer_id bigint NOT NULL, status text NOT NULL, total numeric(12,2) NOT NULL,
  note text, placed_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now())`;
const NOTE = "Please leave the parcel with the neighbour on the second floor; the bell does not work.";
const ROWS_OF_A_STATEMENT = 1000;

/** What is measured: its statements, and how many rows each changes. */
interface Shape {
  readonly what: string;
  readonly rows: number;
  readonly sql: (table: string, i: number) => string;
}

const SHAPES: readonly Shape[] = [
  {
    what: "INSERT of one row",
    rows: 1,
    sql: (table, i) => `INSERT INTO ${table} VALUES (${i}, ${i % 100}, 'placed', 19.90, '${NOTE}')`,
  },
  {
    what: "UPDATE of one row",
    rows: 1,
    sql: (table, i) => `UPDATE ${table} SET status = 'paid' WHERE id = ${i}`,
  },
  {
    what: `INSERT of ${ROWS_OF_A_STATEMENT} rows`,
    rows: ROWS_OF_A_STATEMENT,
    sql: (table, i) =>
      `INSERT INTO ${table} SELECT i, i % 100, 'placed', 19.90, '${NOTE}' FROM generate_series(${i + 1}000000, ${i + 1}000000 + ${ROWS_OF_A_STATEMENT - 1}) i`,
  },
  {
    what: `UPDATE of ${ROWS_OF_A_STATEMENT} rows`,
    rows: ROWS_OF_A_STATEMENT,
    sql: (table, i) =>
      `UPDATE ${table} SET status = 'paid' WHERE id BETWEEN ${i + 1}000000 AND ${i + 1}000000 + ${ROWS_OF_A_STATEMENT - 1}`,
  },
];

/** What the triggers add to an application's statements, on a server that syncs its log. */
export const triggers: Bench = {
  about:
    "Write overhead of triggers: the same statements on a table without and with them, in turn; each its own transaction, synced.",
  options: {
    statements: { type: "string", default: "400" },
    rounds: { type: "string", default: "5" },
  },
  async run(say, values) {
    await using parts = new AsyncDisposableStack();
    const server = await startEmbeddedPostgres({ durable: true });
    parts.defer(() => server.stop("immediate"));
    const client = new pg.Client({ connectionString: server.url });
    await client.connect();
    parts.defer(() => client.end());
    await client.query(`CREATE TABLE plain ${TABLE}; CREATE TABLE caught ${TABLE}`);
    for (const sql of [
      ...auditSchemaSql("tributary"),
      ...tableTriggersSql("tributary", { schema: "public", table: "caught" }),
    ])
      await client.query(sql);
    const found: Record<string, object> = {};
    for (const shape of SHAPES) {
      const statements = Math.ceil(Number(values.statements) / (shape.rows > 1 ? 20 : 1));
      const rounds: { plain: number; caught: number }[] = [];
      for (let round = 0; round < Number(values.rounds); round++) {
        const from = round * statements;
        // In turn, and not always in the same one.
        const order = round % 2 === 0 ? (["plain", "caught"] as const) : (["caught", "plain"] as const);
        const times = { plain: 0, caught: 0 };
        for (const table of order) times[table] = await timeOf(client, shape, table, from, statements);
        rounds.push(times);
        // As a capture task that keeps up would leave it.
        await client.query("DELETE FROM tributary.changes");
      }
      const [plain, caught] = [median(rounds.map((r) => r.plain)), median(rounds.map((r) => r.caught))];
      const ratio = median(rounds.map((r) => r.caught / r.plain));
      const figures = {
        ...{ plainUs: Math.round(plain), triggersUs: Math.round(caught), ratio: Number(ratio.toFixed(2)) },
        addedUsARow: Number(((caught - plain) / shape.rows).toFixed(1)),
        transactionsASecond: { plain: Math.round(1e6 / plain), triggers: Math.round(1e6 / caught) },
      };
      found[shape.what] = figures;
      say(
        `  ${shape.what.padEnd(22)} ${String(figures.plainUs).padStart(7)} µs without, ${String(figures.triggersUs).padStart(7)} with: × ${figures.ratio} (rounds ${rounds
          .map((r) => (r.caught / r.plain).toFixed(2))
          .join(
            " ",
          )}), ${figures.addedUsARow} µs a row; ${figures.transactionsASecond.plain} and ${figures.transactionsASecond.triggers} transactions/s`,
      );
    }
    return found;
  },
};

/** Microseconds a statement. */
async function timeOf(
  client: pg.Client,
  { sql }: Shape,
  table: string,
  from: number,
  statements: number,
): Promise<number> {
  const started = performance.now();
  for (let i = from; i < from + statements; i++) await client.query(sql(table, i));
  return ((performance.now() - started) * 1000) / statements;
}

/** The middle of several. */
export function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}
