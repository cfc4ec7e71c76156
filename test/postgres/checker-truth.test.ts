import pg from "pg";
import { describe, expect, test } from "vitest";
import { formatTable } from "../../lib/change/table-pattern.ts";
import { CHECKED_SCHEMA, CHECKED_TABLES } from "../../lib/testing/checker/tables.ts";
import { Truth, type TruthChange } from "../../lib/testing/checker/truth.ts";
import { runWorkload } from "../../lib/testing/checker/workload.ts";
import { freshDatabase, withPostgres } from "./server.ts";

describe("the checker's workload and truth", () => {
  withPostgres((server) => {
    test("the truth, replayed, has the keys of the tables; the workload has every kind of change", async () => {
      const databaseUrl = await freshDatabase(server());
      const client = new pg.Client({ connectionString: databaseUrl });
      await client.connect();
      try {
        await client.query(CHECKED_SCHEMA);
        const tables = CHECKED_TABLES.map((table) => ({ ...table, key: table.primaryKey }));
        const truth = await Truth.begin({ databaseUrl, name: "truth", tables });
        const signal = AbortSignal.timeout(90_000);
        const kindsOf = (changes: readonly TruthChange[]) =>
          [...new Set(changes.map(({ op, oldKey }) => (oldKey ? "key change" : op)))].sort();
        let changes: readonly TruthChange[] = [];
        // A truncate is rare, and which of its clients comes first is chance: more until there was one.
        for (let seed = 1; !kindsOf(changes).includes("t") && !signal.aborted; seed++) {
          const done = await runWorkload({ databaseUrl, seed, changes: 6_000, signal });
          expect(done.committed).toBeGreaterThan(100);
          expect(done.rolledBack).toBeGreaterThan(0);
          changes = await truth.read();
        }
        const rows = new Map<string, Set<string>>();
        for (const { table, op, key, oldKey } of changes) {
          const keys = rows.get(table) ?? new Set();
          rows.set(table, keys);
          if (op === "t") keys.clear();
          if (oldKey) expect(keys.delete(oldKey.join("\0"))).toBe(true);
          if (op === "d") expect(keys.delete(key.join("\0"))).toBe(true);
          if (op === "c" || op === "u") keys.add(key.join("\0"));
        }
        for (const table of CHECKED_TABLES) {
          const name = formatTable(table);
          const key = table.primaryKey.map((column) => `${column}::text`).join(" || chr(1) || ");
          const stored = await client.query<{ key: string }>(`SELECT ${key} AS key FROM ${name}`);
          const expected = [...(rows.get(name) ?? [])].map((k) => k.replaceAll("\0", "\u0001"));
          expect(stored.rows.map((row) => row.key).sort()).toEqual(expected.sort());
        }

        expect(kindsOf(changes)).toEqual(["c", "d", "key change", "t", "u"]);
        const sizes = new Map<bigint, number>();
        for (const { commitLsn } of changes) sizes.set(commitLsn, (sizes.get(commitLsn) ?? 0) + 1);
        expect(Math.max(...sizes.values())).toBeGreaterThan(200);
        // Commit order, and inside a transaction by ordinal.
        const at = changes.map((c) => c.commitLsn * 1_000_000n + BigInt(c.ordinal));
        expect(at.every((value, i) => i === 0 || value > (at[i - 1] as bigint))).toBe(true);
        await truth.end();
      } finally {
        await client.end();
      }
    });
  });
});
