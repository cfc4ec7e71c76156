import { type ChangeEvent, consumer, type Sweep } from "../../../index.ts";
import { CHECKED_TABLES } from "../tables.ts";
import { SinkSession } from "./session.ts";

/** A sink that compares positions: what is older than what it holds leaves no visible trace. */
const session = new SinkSession("positions");

const keys = new Map(
  CHECKED_TABLES.map(({ schema, table, primaryKey }) => [`${schema}.${table}`, primaryKey]),
);

export const handler = session.recorded(
  consumer("positions")
    .on("checked.*", ["create", "update", "delete", "truncate"], async (event) => {
      await session.mischief.meet("before");
      await (event.operation === "truncate" ? truncate(event) : write(event));
      await session.mischief.meet("after");
    })
    .on("checked.*", "read", read)
    .onSweep("checked.*", sweep)
    .handler(),
);

/** A delete leaves a row without data: a late change from before it meets the delete's position. */
async function write(event: ChangeEvent): Promise<void> {
  const row = event.row ?? {};
  const table = `${event.schema}.${event.table}`;
  const key = (keys.get(table) ?? []).map((column) => row[column]);
  const replaces = event.operation !== "update";
  await session.pool.query({
    name: "write",
    text: `
      WITH written AS (
        INSERT INTO held AS old (tbl, key, partition, position, data) VALUES ($1, $2, $4, $5, $6::jsonb)
        ON CONFLICT (tbl, key) DO UPDATE
        SET partition = excluded.partition, position = excluded.position,
            data = CASE WHEN $7 THEN excluded.data ELSE coalesce(old.data, '{}') || excluded.data END
        WHERE old.position < excluded.position
        RETURNING 1
      )
      INSERT INTO effects (consumer, topic, partition, position, invocation, visible)
      VALUES ('positions', $3, $4, $5, $8, EXISTS (SELECT FROM written))`,
    values: [
      table,
      JSON.stringify(key),
      event.topic,
      event.partition,
      event.position,
      event.operation === "delete" ? null : JSON.stringify(row),
      replaces,
      session.invocation,
    ],
  });
}

/**
 * A row that a backfill read is no effect that the truth demands: it shows in what is held. One that is older than a change
 * before it in the stream would stand over that change, and differ from the table at the end.
 */
async function read(event: ChangeEvent): Promise<void> {
  const row = event.row ?? {};
  const table = `${event.schema}.${event.table}`;
  // A table of a fault's own is compared with nothing.
  if (!keys.has(table)) return;
  const key = (keys.get(table) ?? []).map((column) => row[column]);
  await session.pool.query({
    name: "read",
    text: `
      INSERT INTO held AS old (tbl, key, partition, position, data) VALUES ($1, $2, $3, $4, $5::jsonb)
      ON CONFLICT (tbl, key) DO UPDATE
      SET partition = excluded.partition, position = excluded.position, data = excluded.data
      WHERE old.position < excluded.position`,
    values: [table, JSON.stringify(key), event.partition, event.position, JSON.stringify(row)],
  });
}

/** Rows that a backfill did not find are not in the table any more. */
async function sweep({ schema, table, partition, before }: Sweep): Promise<void> {
  await session.pool.query(
    "UPDATE held SET data = NULL, position = $3 WHERE tbl = $1 AND partition = $2 AND position < $3",
    [`${schema}.${table}`, partition, before],
  );
}

/** Removes the rows of this partition that are older (rule 14). */
async function truncate(event: ChangeEvent): Promise<void> {
  await session.pool.query({
    name: "truncate",
    text: `
      WITH emptied AS (
        UPDATE held SET data = NULL, position = $4 WHERE tbl = $1 AND partition = $3 AND position < $4
      ), first AS (
        INSERT INTO truncated VALUES ($1, $3, $4) ON CONFLICT DO NOTHING RETURNING 1
      )
      INSERT INTO effects (consumer, topic, partition, position, invocation, visible)
      VALUES ('positions', $2, $3, $4, $5, EXISTS (SELECT FROM first))`,
    values: [
      `${event.schema}.${event.table}`,
      event.topic,
      event.partition,
      event.position,
      session.invocation,
    ],
  });
}
