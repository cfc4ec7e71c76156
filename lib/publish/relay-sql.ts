import { quoteIdentifier } from "../change/sql-identifier.ts";
import { type OutboxTableName, quoteOutboxTable } from "../definition/outbox-table.ts";
import { outboxTableSql } from "./table-sql.ts";

/** In how many lanes relays share the work: each is owned by one relay at a time. */
const RELAY_LANES = 16;

/** The lanes of topics with this many partitions: a partition belongs to one lane. */
export function lanesOf(partitions: number): number {
  return Math.min(RELAY_LANES, partitions);
}

/** The lane of a partition; the column `lane` of the outbox table computes the same. */
export function laneOf(partition: number, partitions: number): number {
  return partition % lanesOf(partitions);
}

/** The tables beside the outbox that relays share. */
export function relayTables(name: OutboxTableName) {
  return {
    outbox: quoteOutboxTable(name),
    lanes: quoteOutboxTable(name, "_lane"),
    relays: quoteOutboxTable(name, "_relay"),
    hash: quoteOutboxTable(name, "_murmur3"),
  };
}

/**
 * The outbox table as relays need it, as SQL that may run twice: numbers in the order of the inserts, the lane of each
 * row, and the tables in which relays agree who owns which. The numbers come without a cache: those of two events that
 * one transaction after the other wrote grow.
 */
export function relaySql(name: OutboxTableName, partitions: number): readonly string[] {
  const { outbox, lanes, relays, hash } = relayTables(name);
  const index = (suffix: string) => quoteIdentifier(name.table + suffix);
  const count = lanesOf(partitions);
  return [
    ...outboxTableSql(name),
    murmur3Sql(hash),
    `ALTER TABLE ${outbox}
  ADD COLUMN IF NOT EXISTS seq bigint GENERATED ALWAYS AS IDENTITY (CACHE 1),
  ADD COLUMN IF NOT EXISTS published_at timestamptz,
  ADD COLUMN IF NOT EXISTS lane smallint GENERATED ALWAYS AS ((${hash}(aggregate_id) % ${partitions} % ${count})::smallint) STORED;`,
    `CREATE UNIQUE INDEX IF NOT EXISTS ${index("_seq")} ON ${outbox} (seq);`,
    `CREATE INDEX IF NOT EXISTS ${index("_waiting")} ON ${outbox} (lane, seq) WHERE published_at IS NULL;`,
    `CREATE INDEX IF NOT EXISTS ${index("_kept")} ON ${outbox} (published_at) WHERE published_at IS NOT NULL;`,
    `CREATE TABLE IF NOT EXISTS ${lanes} (
  lane smallint PRIMARY KEY,
  owner uuid,
  generation bigint NOT NULL DEFAULT 0,
  batch bigint NOT NULL DEFAULT 0,
  seqs bigint[]
);`,
    `INSERT INTO ${lanes} (lane) SELECT generate_series(0, ${count - 1}) ON CONFLICT DO NOTHING;`,
    `CREATE TABLE IF NOT EXISTS ${relays} (id uuid PRIMARY KEY, seen_at timestamptz NOT NULL);`,
  ];
}

/** SQL that removes both, events that were not told among them. */
export function dropOutboxSql(name: OutboxTableName): readonly string[] {
  const { outbox, lanes, relays, hash } = relayTables(name);
  return [
    `DROP TABLE IF EXISTS ${relays};`,
    `DROP TABLE IF EXISTS ${lanes};`,
    `DROP TABLE IF EXISTS ${outbox};`,
    `DROP FUNCTION IF EXISTS ${hash}(text);`,
  ];
}

/**
 * MurmurHash3 (x86, 32 bit, seed 0) of the UTF-8 bytes, as `lib/change/topic.ts` computes it. A product of two 32-bit
 * numbers is taken in halves: `bigint` has 63 bits.
 */
function murmur3Sql(name: string): string {
  const times = (a: string, b: number) =>
    `((${a} & 65535) * ${b} + ((((${a} >> 16) * ${b}) & 65535) << 16)) & 4294967295`;
  const rotate = (a: string, bits: number) => `((${a} << ${bits}) | (${a} >> ${32 - bits})) & 4294967295`;
  const scramble = `k := ${times("k", 0xcc9e2d51)};
    k := ${rotate("k", 15)};
    k := ${times("k", 0x1b873593)};
    h := h # k;`;
  return `CREATE OR REPLACE FUNCTION ${name}(key text) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $murmur3$
DECLARE
  bytes bytea := convert_to(key, 'UTF8');
  length int := octet_length(bytes);
  h bigint := 0;
  k bigint;
  i int := 0;
BEGIN
  WHILE i + 4 <= length LOOP
    k := get_byte(bytes, i) | (get_byte(bytes, i + 1) << 8) | (get_byte(bytes, i + 2) << 16)
      | (get_byte(bytes, i + 3)::bigint << 24);
    ${scramble}
    h := ${rotate("h", 13)};
    h := (h * 5 + 3864292196) & 4294967295;
    i := i + 4;
  END LOOP;
  IF i < length THEN
    k := 0;
    FOR at IN REVERSE length - 1 .. i LOOP
      k := (k << 8) | get_byte(bytes, at);
    END LOOP;
    ${scramble}
  END IF;
  h := h # length;
  h := h # (h >> 16);
  h := ${times("h", 0x85ebca6b)};
  h := h # (h >> 13);
  h := ${times("h", 0xc2b2ae35)};
  RETURN h # (h >> 16);
END
$murmur3$;`;
}
