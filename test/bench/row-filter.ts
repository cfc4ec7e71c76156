import { loadavg } from "node:os";
import pg from "pg";
import { startEmbeddedPostgres } from "../../lib/local/embedded-postgres.ts";
import { recvlogicalOf } from "./capture/clients.ts";
import type { Bench } from "./main.ts";
import { writeStep } from "./scale/step-backlog.ts";

/** Publications by the share of rows that pass: a hash of the key, which must be immutable and of the replica identity. */
const FILTERS: Readonly<Record<string, string>> = {
  all: "",
  whole: "WHERE (mod(hashint8extended(id, 0), 1) = 0)",
  half: "WHERE (mod(hashint8extended(id, 0), 2) = 0)",
  otherhalf: "WHERE (mod(hashint8extended(id, 0), 2) <> 0)",
  none: "WHERE (mod(hashint8extended(id, 0), 1) <> 0)",
};

/**
 * Whether a hash filter on the publication lets several slots share one hot table: one backlog through slots whose
 * publications pass all of its rows, half of them, none, and two halves at the same time; and through a slot of another
 * database, which passes it over.
 */
export const rowFilter: Bench = {
  about: "One hot table through publications with a row filter, by pg_recvlogical.",
  options: { changes: { type: "string", default: "500000" }, rounds: { type: "string", default: "3" } },
  async run(say, values) {
    const changes = Number(values.changes);
    const rounds = Number(values.rounds);
    const server = await startEmbeddedPostgres({
      settings: { max_wal_size: "64GB", checkpoint_timeout: "1h", autovacuum: "off" },
    });
    const elsewhere = new pg.Client({ connectionString: server.url });
    elsewhere.on("error", () => {});
    try {
      await elsewhere.connect();
      await elsewhere.query("CREATE PUBLICATION f_elsewhere FOR ALL TABLES");
      await elsewhere.query("SELECT pg_create_logical_replication_slot('elsewhere', 'pgoutput')");
      await using backlog = await writeStep(
        server,
        {
          name: "filtered",
          changes,
          setup: [
            "CREATE TABLE t (id bigint PRIMARY KEY, note text NOT NULL)",
            ...Object.entries(FILTERS).map(
              ([name, filter]) => `CREATE PUBLICATION f_${name} FOR TABLE t ${filter}`,
            ),
          ],
          write: [
            `DO $$ BEGIN FOR i IN 0..${changes / 100 - 1} LOOP
               INSERT INTO t SELECT i * 100 + g, repeat('0123456789', 10) FROM generate_series(1, 100) g;
               COMMIT; END LOOP; END $$`,
          ],
        },
        "filtered",
      );
      const found: Record<string, number[]> = {};
      const reading = async (name: string, slot: string) =>
        backlog.withSlot(slot, async () => (await recvlogicalOf(`f_${name}`).read(backlog, slot)).seconds);
      for (let round = 0; round < rounds; round++) {
        for (const name of Object.keys(FILTERS)) {
          const seconds = await reading(name, `${name}_${round}`);
          found[name] = [...(found[name] ?? []), seconds];
        }
        const other = `elsewhere_${round}`;
        await elsewhere.query(`SELECT pg_copy_logical_replication_slot('elsewhere', '${other}')`);
        const place = { ...backlog, databaseUrl: server.url };
        const passing = (await recvlogicalOf("f_elsewhere").read(place, other)).seconds;
        found["another database"] = [...(found["another database"] ?? []), passing];
        const started = performance.now();
        await Promise.all([reading("half", `half_a_${round}`), reading("otherhalf", `half_b_${round}`)]);
        found["two halves at once"] = [
          ...(found["two halves at once"] ?? []),
          (performance.now() - started) / 1000,
        ];
      }
      const rates = Object.fromEntries(
        Object.entries(found).map(([name, seconds]) => [name, Math.round(changes / median(seconds))]),
      );
      for (const [name, rate] of Object.entries(rates)) {
        say(`  ${name.padEnd(20)} ${String(rate).padStart(8)} changes of the log/s`);
      }
      return { changes, rounds, load: loadavg()[0], changesOfTheLogPerSecond: rates };
    } finally {
      await elsewhere.end().catch(() => {});
      await server.stop("immediate");
    }
  },
};

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] as number;
}
