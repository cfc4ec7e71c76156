import { setTimeout as delay } from "node:timers/promises";
import type { SourceChange } from "../../lib/change/change-stream.ts";
import type { WireRow } from "../../lib/change/event.ts";
import { parsed } from "./backfill-replay.ts";
import { superuser } from "./source.ts";

/* A table that changes in every way while it is backfilled, and what must hold of the rows that come. */

export const ROWS = 160;
const KEYS = 240;

/** Text of PostgreSQL's own making: long enough to be stored apart from its row. */
export const SETUP = `
  CREATE SEQUENCE versions;
  CREATE TABLE load (id bigint PRIMARY KEY, version bigint NOT NULL, short text, long text);
  ALTER TABLE load ALTER long SET STORAGE EXTERNAL;
  INSERT INTO load SELECT i * 3 - ${KEYS}, 0, 'n' || i, repeat(i || ' ', 800) FROM generate_series(1, ${ROWS}) i`;

/** Random transactions until it is aborted: inserts, updates that leave the long value, deletes, key changes. */
export async function workload(url: string, seed: number, until: AbortSignal): Promise<void> {
  const sql = await superuser(url);
  let state = seed;
  const random = (below: number) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fff_ffff;
    return Math.floor((state / 0x8000_0000) * below);
  };
  const key = () => random(3 * ROWS) - KEYS;
  const statement = () => {
    switch (random(6)) {
      case 0:
        return `INSERT INTO load VALUES (${key()}, nextval('versions'), 'new', repeat('${random(100)} ', 800)) ON CONFLICT DO NOTHING`;
      case 1:
        return `DELETE FROM load WHERE id = ${key()}`;
      case 2:
        return `UPDATE load SET id = ${key()}, version = nextval('versions')${random(2) ? "" : ", long = long || 'x'"} WHERE id = ${key()}`;
      case 3:
        return `UPDATE load SET version = nextval('versions'), long = repeat('${random(100)} ', 900) WHERE id BETWEEN ${key()} AND ${key()} AND id % 17 = 0`;
      default:
        return `UPDATE load SET version = nextval('versions'), short = short || '!' WHERE id % 41 = ${random(41)}`;
    }
  };
  while (!until.aborted) {
    const statements = Array.from({ length: 1 + random(3) }, statement);
    const end = random(10) === 0 ? "ROLLBACK" : "COMMIT";
    await sql.query(`BEGIN; ${statements.join("; ")}; ${end}`).catch(() => sql.query("ROLLBACK"));
    await delay(random(3));
  }
  await sql.end();
}

/** What the log has told of a row must be what a backfill tells of it. Gives how many rows it told. */
export function contradictions(changes: readonly SourceChange[]): { told: number; wrong: string[] } {
  const known = new Map<string, WireRow | null>();
  const wrong: string[] = [];
  let told = 0;
  for (const change of changes) {
    const { op, before, after } = parsed(change);
    const id = String((after ?? before)?.id);
    if (op === "r") {
      told++;
      const row = known.get(id);
      if (row === null) wrong.push(`${id} is deleted, and comes at ${change.position}`);
      else if (row && row.version !== after?.version)
        wrong.push(
          `${id} has version ${row.version}, and comes with ${after?.version} at ${change.position}`,
        );
      if (after?.long === undefined && row?.long === undefined)
        wrong.push(`the long value of ${id} is missing at ${change.position}`);
    }
    if (op === "d") known.set(id, null);
    else if (op !== "m") known.set(id, { ...known.get(id), ...after } as WireRow);
  }
  return { told, wrong };
}
