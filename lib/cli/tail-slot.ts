import type pg from "pg";
import { quoteIdentifier } from "../change/sql-identifier.ts";
import { NEW_EPOCH_DROP_SLOT } from "../definition/new-epoch.ts";
import { readPublication } from "../source/postgres/catalog/publication.ts";
import { isTailsOwn, TAIL_NAME } from "../source/postgres/definition.ts";
import { withConnection } from "../source/postgres/link/connection.ts";
import type { PostgresConnectionOptions } from "../source/postgres/link/connection-options.ts";
import { SlotForeignError } from "../source/postgres/postgres-errors.ts";
import { readServerVersion } from "../source/postgres/preflight/server-facts.ts";
import { dropSlot, readSlot } from "../source/postgres/slot/slot.ts";

/** Settings of `checkTailSlot`: the slot that tail is to use. */
export interface TailSlotOptions {
  readonly connection: PostgresConnectionOptions;
  readonly slot: string;
  /** True if it is read from. */
  readonly read: boolean;
  /** True if it is dropped at the end. */
  readonly drop: boolean;
}

/**
 * Looks whether tail may do so, before anything is touched. Tail keeps no record of its slots: a slot is its own when it makes it
 * in this run, or by its name, which no definition may use.
 *
 * @throws SlotForeignError for a slot that is not tail's to drop, or that a pipeline reads from.
 */
export async function checkTailSlot({ connection, slot: name, read, drop }: TailSlotOptions): Promise<void> {
  await withConnection(connection, {}, async (client) => {
    const slot = await readSlot((sql) => client.query(sql), name);
    if (!slot) return;
    if (drop && !isTailsOwn(name)) {
      throw new SlotForeignError({
        message: `the replication slot "${name}" is not tail's to drop: it was there before this run, and tail's own are named "${TAIL_NAME}" or "${TAIL_NAME}_…"; nothing was read or dropped`,
        remedy: `The slot of a pipeline goes with tributary teardown. One that nobody needs any more, such as another name that an earlier tail was given: SELECT pg_drop_replication_slot('${name}');`,
      });
    }
    // By default a pipeline's slot and publication have one name.
    const pipeline = (await readPublication(client, name, await readServerVersion(client)))?.madeFor;
    if (read && pipeline !== undefined && !isTailsOwn(name)) {
      throw new SlotForeignError({
        message: `the replication slot "${name}" is that of the pipeline "${pipeline}": what tail reads from it the pipeline would lack; nothing was read`,
        remedy: `Leave --slot out, and tail makes one of its own (--publication ${name} shows what the pipeline sees). If tail read from it before, the pipeline needs a new epoch: ${NEW_EPOCH_DROP_SLOT}`,
      });
    }
  });
}

/**
 * Drops a slot that `checkTailSlot` let pass or this run made, and tail's own publication when no other slot of tail's is left that
 * needs it.
 *
 * @returns what was dropped, in words.
 * @throws SlotInUseError while somebody reads from it.
 */
export async function dropTailSlot(
  connection: PostgresConnectionOptions,
  slotName: string,
): Promise<readonly string[]> {
  return await withConnection(connection, {}, async (client) => {
    const dropped: string[] = [];
    const slot = await readSlot((sql) => client.query(sql), slotName);
    if (slot) {
      await dropSlot(client, slot);
      dropped.push(`the slot "${slotName}"`);
    }
    const publication = await readPublication(client, TAIL_NAME, await readServerVersion(client));
    if (publication?.ours && !(await isNeeded(client))) {
      await client.query(`DROP PUBLICATION ${quoteIdentifier(TAIL_NAME)}`);
      dropped.push(`the publication "${TAIL_NAME}"`);
    }
    return dropped;
  });
}

/**
 * A slot without its publication cannot be decoded any more, and from 18 on passes over changes in silence. One of another name may be
 * tail's too (`--slot`): only what has a publication of its own name surely needs no other.
 */
async function isNeeded(client: pg.Client): Promise<boolean> {
  const { rows } = await client.query<{ name: string; hasOwn: boolean }>(
    `SELECT s.slot_name::text AS name, EXISTS (SELECT FROM pg_publication p WHERE p.pubname = s.slot_name AND p.pubname <> $1) AS "hasOwn"
       FROM pg_replication_slots s WHERE s.database = current_database() AND s.plugin = 'pgoutput'`,
    [TAIL_NAME],
  );
  return rows.some(({ name, hasOwn }) => isTailsOwn(name) || !hasOwn);
}
