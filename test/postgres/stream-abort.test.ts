import { expect, test } from "vitest";
import { parsePosition } from "../../lib/change/position.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { ids, inOrder, OpenSource, superuser } from "./source.ts";

/** Rows enough to outgrow 64 kB. */
const LARGE = "INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, 3000) g";

/** Histories of one large transaction that leaves nothing behind, or `LEFT`. */
const ROLLED_BACK: Readonly<Record<string, readonly string[]>> = {
  "with a savepoint": [
    "BEGIN",
    "INSERT INTO t VALUES (0, 'top')",
    "SAVEPOINT a",
    "INSERT INTO t VALUES (1000000, 's')",
    "RELEASE a",
    LARGE,
    "ROLLBACK",
  ],
  "with many savepoints, some rolled back": [
    "BEGIN",
    ...Array.from({ length: 40 }, (_, i) => [
      `SAVEPOINT a${i}`,
      `INSERT INTO t VALUES (${1_000_000 + i}, 's')`,
      i % 3 === 0 ? `ROLLBACK TO a${i}` : `RELEASE a${i}`,
    ]).flat(),
    LARGE,
    "ROLLBACK",
  ],
  "large in its savepoint": ["BEGIN", "INSERT INTO t VALUES (0, 'top')", "SAVEPOINT a", LARGE, "ROLLBACK"],
  "prepared, then rolled back": [
    "BEGIN",
    "SAVEPOINT a",
    "INSERT INTO t VALUES (1000000, 's')",
    "RELEASE a",
    LARGE,
    "PREPARE TRANSACTION 'p'",
    "ROLLBACK PREPARED 'p'",
  ],
};

eachPostgres(
  "transactions that outgrow logical_decoding_work_mem",
  (server) => {
    test.each(Object.entries(ROLLED_BACK))(
      "rolled back, %s: no trace, and the stream goes on",
      async (_, statements) => {
        const url = await freshDatabase(server());
        const client = await superuser(url);
        await client.query("CREATE TABLE t (id int PRIMARY KEY, v text)");
        const source = await OpenSource.open(url);
        try {
          await client.query("INSERT INTO t VALUES (-1, 'before')");
          // Begins before and commits after: decoded around the rollback.
          const other = await superuser(url);
          await other.query("BEGIN; INSERT INTO t VALUES (-2, 'around')");
          for (const statement of statements) await client.query(statement);
          await other.query("INSERT INTO t VALUES (-3, 'around'); COMMIT");
          await other.end();
          await client.query("INSERT INTO t VALUES (-4, 'after')");
          await source.until(4);
          expect(ids(source.changes)).toEqual([-1, -2, -3, -4]);
          expect(source.changes.map(({ position }) => parsePosition(position).ordinal)).toEqual([1, 1, 2, 1]);
          inOrder(source.changes);
        } finally {
          await source.close();
          await client.end();
        }
      },
    );

    test("committed, with a savepoint that was rolled back: all the rest is there", async () => {
      const url = await freshDatabase(server());
      const client = await superuser(url);
      await client.query("CREATE TABLE t (id int PRIMARY KEY, v text)");
      const source = await OpenSource.open(url);
      try {
        await client.query(`BEGIN; INSERT INTO t VALUES (-1, 'top'); SAVEPOINT a; ${LARGE}; ROLLBACK TO a`);
        await client.query("SAVEPOINT b; INSERT INTO t VALUES (-2, 's'); RELEASE b; COMMIT");
        await source.until(2);
        expect(ids(source.changes)).toEqual([-1, -2]);
      } finally {
        await source.close();
        await client.end();
      }
    });
  },
  { settings: { logical_decoding_work_mem: "64kB", max_prepared_transactions: "2" } },
);
