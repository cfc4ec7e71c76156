// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the breakages are source text
import type { Mutation } from "./mutation.ts";

/** Breakages of triggers, polling and the outbox. */
export const BATCHES: readonly Mutation[] = [
  {
    name: "an outbox read by serial number",
    file: "lib/source/outbox/relay-database.ts",
    from: "WHERE o.lane = ready.lane AND o.published_at IS NULL ORDER BY",
    to: "WHERE o.lane = ready.lane AND o.published_at IS NULL AND o.seq > (SELECT COALESCE(max(k.seq), 0) FROM ${outbox} k WHERE k.published_at IS NOT NULL) ORDER BY",
    tests: ["test/postgres/outbox-relay.test.ts"],
  },
  {
    name: "changes of a batch that were decoded before a failure dropped",
    file: "lib/source/batch/batch-stream.ts",
    from: "          if (messages.length > 0) yield messages;\n          if (failure !== undefined) throw failure;\n",
    to: "          if (failure !== undefined) throw failure;\n          if (messages.length > 0) yield messages;\n",
    tests: ["test/postgres/batch-stream.test.ts"],
  },
  {
    name: "the command of a deleted row taken from a number that stands for two",
    file: "lib/source/triggers/audit-sql.ts",
    from: "ELSIF TG_OP = 'DELETE' AND NOT own THEN",
    to: "ELSIF TG_OP = 'DELETE' THEN",
    tests: ["test/postgres/triggers.test.ts"],
  },
  {
    name: "each of several row triggers of a table writes",
    file: "lib/source/triggers/audit-sql.ts",
    from: "IF TG_NAME <> writer THEN RETURN NULL; END IF;",
    to: "",
    tests: ["test/postgres/trigger-partitions.test.ts"],
  },
  {
    name: "a partition's truncate told of its whole table",
    file: "lib/source/triggers/audit-sql.ts",
    from: "IF covered THEN RETURN NULL; END IF;",
    to: "",
    tests: ["test/postgres/trigger-partitions.test.ts"],
  },
  {
    name: "a polled batch read at once, however large its rows",
    file: "lib/source/polling/row-pages.ts",
    from: "reduce((sum, { bytes }) => sum + bytes, 0) <= PAGE_BYTES",
    to: "length > 0",
    tests: ["test/postgres/polling.test.ts"],
  },
  {
    name: "an outbox's batch forgotten by the next owner",
    file: "lib/source/outbox/relay-database.ts",
    from: "SET owner = $1, generation = $2 WHERE lane IN",
    to: "SET owner = $1, generation = $2, seqs = NULL WHERE lane IN",
    tests: ["test/postgres/outbox-relay.test.ts"],
  },
  {
    name: "an outbox's rows removed by who lost their lane",
    file: "lib/source/outbox/relay-database.ts",
    from: "WHERE lane = $1 AND owner = $2 AND generation = $3 AND batch = $4 AND seqs IS NOT NULL RETURNING lane",
    to: "WHERE lane = $1 AND $2::uuid IS NOT NULL AND $3::bigint + $4::bigint > 0 RETURNING lane",
    tests: ["test/postgres/outbox-relay.test.ts"],
  },
];
