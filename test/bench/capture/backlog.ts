import pg from "pg";
import { type EmbeddedPostgres, startEmbeddedPostgres } from "../../../lib/local/embedded-postgres.ts";

/** Publication of the backlog's one table, `public.orders`. */
export const PUBLICATION = "bench";
/** The slot that holds the backlog back; runs read copies of it. */
const RETAINED = "bench_backlog";

/** Changes that wait in a server's log, to be read again and again. */
export interface Backlog extends AsyncDisposable {
  readonly server: EmbeddedPostgres;
  readonly databaseUrl: string;
  readonly changes: number;
  readonly commits: number;
  /** End of the log behind the last change. */
  readonly endLsn: string;
  /** Bytes of log that the slot holds back. */
  readonly walBytes: number;
  /** Runs `read` with a slot of its own that begins where the backlog begins; drops it after. */
  withSlot<T>(name: string, read: () => Promise<T>): Promise<T>;
  query(sql: string): Promise<readonly Record<string, unknown>[]>;
}

/**
 * 70% inserts, 25% updates, 5% deletes, in transactions of 1, 10 and 1,000 changes; each size carries a third of the
 * changes. The same every time.
 */
const WRITE = (changes: number) => `
DO $$
DECLARE
  size int; sizes int[] := ARRAY[1, 10, 1000]; carried int[] := ARRAY[0, 0, 0]; which int;
  done int := 0; oldest bigint := 1; newest bigint := 0; dice float8; id_ bigint;
  notes text[] := ARRAY[
    'Please leave the parcel with the neighbour on the second floor; the bell does not work, knock twice.',
    'Gift wrapping, card: "Happy birthday, dear Anna!", no invoice in the box, deliver before Friday noon.',
    'Bitte beim Nachbarn in der Straße „Am Brühl“ abgeben – Zürich, 3. Stock, danke schön! ☎ 044 123 45 67',
    'Ordered by phone. Customer asks for a call before delivery and pays the difference at the counter later.'];
BEGIN
  PERFORM setseed(0.42);
  WHILE done < ${changes} LOOP
    which := CASE WHEN carried[3] <= carried[2] AND carried[3] <= carried[1] THEN 3
                  WHEN carried[2] <= carried[1] THEN 2 ELSE 1 END;
    size := least(sizes[which], ${changes} - done);
    FOR i IN 1..size LOOP
      dice := random();
      IF dice < 0.70 OR newest - oldest < 100 THEN
        newest := newest + 1;
        INSERT INTO orders VALUES (newest, (random() * 50000)::int, 'open', (random() * 100000)::int / 100.0, false,
          notes[1 + newest % 4],
          jsonb_build_object('channel', 'web', 'gift', newest % 3 = 0, 'items', (random() * 9)::int, 'weight', 1.25),
          timestamptz '2026-11-23 10:15:30.123456Z' + newest * interval '37 ms');
      ELSIF dice < 0.95 THEN
        id_ := oldest + floor(random() * (newest - oldest + 1))::bigint;
        UPDATE orders SET status = 'paid', paid = true, total = total + 1 WHERE id = id_;
      ELSE
        DELETE FROM orders WHERE id = oldest;
        oldest := oldest + 1;
      END IF;
    END LOOP;
    done := done + size;
    carried[which] := carried[which] + size;
    COMMIT;
  END LOOP;
END $$`;

/** Starts a server of its own and fills its log. */
export async function makeBacklog(changes: number): Promise<Backlog> {
  const server = await startEmbeddedPostgres({
    settings: {
      max_wal_size: "64GB",
      checkpoint_timeout: "1h",
      autovacuum: "off",
      max_replication_slots: "50",
      max_wal_senders: "50",
    },
  });
  const client = new pg.Client({ connectionString: server.url });
  client.on("error", () => {});
  const query = async (sql: string) => (await client.query(sql)).rows;
  const stop = async () => {
    await client.end().catch(() => {});
    await server.stop("immediate");
  };
  try {
    await client.connect();
    await query(
      `CREATE TABLE orders (id bigint PRIMARY KEY, customer_id int NOT NULL, status text NOT NULL,
         total numeric(10,2) NOT NULL, paid boolean NOT NULL, note text, meta jsonb, placed_at timestamptz NOT NULL)`,
    );
    await query(`CREATE PUBLICATION ${PUBLICATION} FOR TABLE orders`);
    const [begin] = await query(
      `SELECT lsn::text AS lsn, pg_snapshot_xmax(pg_current_snapshot())::text AS xmax FROM pg_create_logical_replication_slot('${RETAINED}', 'pgoutput')`,
    );
    await query(WRITE(changes));
    const [end] = await query(
      `SELECT pg_current_wal_insert_lsn()::text AS lsn,
              (pg_current_wal_insert_lsn() - '${begin?.lsn}'::pg_lsn)::float8 AS bytes,
              (pg_snapshot_xmax(pg_current_snapshot())::text::bigint - ${begin?.xmax})::int AS commits`,
    );
    await query("CHECKPOINT");
    return {
      server,
      databaseUrl: server.url,
      changes,
      commits: end?.commits as number,
      endLsn: end?.lsn as string,
      walBytes: end?.bytes as number,
      query,
      async withSlot(name, read) {
        await query(`SELECT pg_copy_logical_replication_slot('${RETAINED}', '${name}')`);
        try {
          return await read();
        } finally {
          await dropSlot(query, name);
        }
      },
      [Symbol.asyncDispose]: stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function dropSlot(query: Backlog["query"], name: string): Promise<void> {
  await query(
    `SELECT pg_terminate_backend(active_pid, 10000) FROM pg_replication_slots
      WHERE slot_name = '${name}' AND active_pid IS NOT NULL`,
  );
  await query(`SELECT pg_drop_replication_slot('${name}')`);
}
