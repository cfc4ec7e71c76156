import * as z from "zod";
import { shellWord } from "../../change/printed-command.ts";
import { quoteIdentifier } from "../../change/sql-identifier.ts";
import { formatTable } from "../../change/table-pattern.ts";
import type { PipelineOf } from "../../definition/definition.ts";
import type { Log } from "../../log.ts";
import { serverBehind, TablesReadError } from "../batch/batch-errors.ts";
import type { BatchPlan, BatchReader, Query } from "../batch/batch-reader.ts";
import { inPages, PAGE_BYTES } from "../batch/pages.ts";
import { parseRecord } from "../batch/record-text.ts";
import type { RowChange } from "../batch/row-messages.ts";
import { parseSnapshot } from "../batch/snapshot.ts";
import type { TriggersSource } from "./definition.ts";
import { INSTALL, UNWATCHED_PARTITIONS } from "./installed.ts";
import { type AuditShape, keptValues, readShape } from "./shape.ts";

const place = z.object({
  /** Everything visible in it has been given. */
  snapshot: z.string(),
  /** The highest id among it. */
  id: z.string(),
});

const batchBounds = z.object({
  /** Null at the very first: everything that stands in the audit table. */
  from: z.string().nullable(),
  to: z.string(),
  /** Set after a restart: rows above this id are taken whatever `from` says of their transaction. */
  above: z.string().nullable(),
  /** The highest id: what has a higher one was written later, whatever `to` says of its transaction. */
  upTo: z.string(),
  rows: z.number(),
  bytes: z.number(),
});

interface AuditRow {
  readonly xid: string;
  readonly id: string;
  readonly relid: number;
  readonly op: string;
  readonly at: string;
  readonly shape: string;
  readonly old_row: string | null;
  readonly new_row: string | null;
}

/** Place and size of a change. */
interface AuditPlace {
  readonly xid: string;
  readonly id: string;
  readonly sub: number;
  readonly bytes: number;
}

const PARTITIONS_EVERY_MS = 60_000;
const MOST_NAMES = 5;

/** The operation of a truncated partition whose rows could not be told. */
const UNREAD = "R";

const OPERATIONS: Readonly<Record<string, RowChange["change"]["op"]>> = {
  I: "insert",
  U: "update",
  D: "delete",
  T: "truncate",
};

/**
 * Reads the audit table by snapshots (rule 27): a batch is what has become visible since the last one, whole transactions,
 * ordered by id. A transaction that commits late is in the batch after its commit, however low its ids are.
 */
export class TriggerReader implements BatchReader {
  readonly kind = "triggers";
  readonly mode = "trigger";
  readonly #source: TriggersSource;
  readonly #changes: string;
  readonly #shapesTable: string;
  readonly #version: number;
  readonly #shapes = new Map<string, AuditShape>();
  readonly #log: Log;
  #checkRestart = true;
  /** Partitions that were said to be unwatched, and when they were looked for last. */
  readonly #unwatched = new Set<string>();
  #lookedAt = Number.NEGATIVE_INFINITY;

  constructor(
    pipeline: PipelineOf<TriggersSource>,
    { version, log }: { readonly version: number; readonly log: Log },
  ) {
    const { source } = pipeline;
    this.#source = source;
    this.#version = version;
    this.#log = log;
    this.#changes = `${quoteIdentifier(source.schema)}.changes`;
    this.#shapesTable = `${quoteIdentifier(source.schema)}.shapes`;
  }

  /** The server may have crashed meanwhile. */
  connected(): void {
    this.#checkRestart = true;
  }

  async plan(query: Query, after: unknown): Promise<BatchPlan | undefined> {
    await this.#lookForPartitions(query);
    const last = after === null ? undefined : place.parse(after);
    const from = last?.snapshot ?? null;
    // On a new session also without rows: who runs now, and with which id, is known from here on.
    const fresh = this.#checkRestart;
    const above = fresh && last ? last.id : null;
    const [found] = await query<{ snapshot: string; id: string | null; rows: number; bytes: number }>(
      `WITH now AS MATERIALIZED (SELECT pg_current_snapshot()::text AS snapshot)
       SELECT now.snapshot, c.* FROM now,
              (SELECT max(id)::text AS id, count(*)::float8 AS rows,
                      coalesce(sum(coalesce(octet_length(old_row), 0) + coalesce(octet_length(new_row), 0)), 0)::float8 AS bytes
                 FROM ${this.#changes} WHERE ${since(from, above)}) c`,
    );
    if (!found) return undefined;
    const { snapshot, id, rows, bytes } = found;
    if (last) checkBehind(last.snapshot, snapshot);
    this.#checkRestart = false;
    if (rows === 0 && !fresh) return undefined;
    const upTo = [last?.id ?? "0", id ?? "0"]
      .map(BigInt)
      .reduce((a, b) => (a > b ? a : b))
      .toString();
    const bounds: z.input<typeof batchBounds> = { from, to: snapshot, above, upTo, rows, bytes };
    return { bounds, after: { snapshot, id: upTo } satisfies z.input<typeof place> };
  }

  async *read(query: Query, bounds: unknown, first: bigint): AsyncGenerator<readonly RowChange[]> {
    const batch = batchBounds.parse(bounds);
    let next = first;
    for await (const rows of this.#pages(query, batch)) {
      await this.#learn(query, rows);
      yield rows.flatMap((row) => this.#change(row, next++) ?? []);
    }
  }

  /** Deletes what every later snapshot sees as ended: it has been given, and is not asked for again. */
  async recorded(query: Query, after: unknown): Promise<void> {
    const { snapshot, id } = place.parse(after);
    await query(
      `DELETE FROM ${this.#changes} WHERE xid < '${parseSnapshot(snapshot).xmin}'::xid8 AND id <= ${digits(id)}`,
    );
  }

  /** A small batch at once; of a large one first the places alone, sorted once, and then its rows page by page. */
  async *#pages(query: Query, batch: z.output<typeof batchBounds>): AsyncGenerator<readonly AuditRow[]> {
    const columns = `xid::text, id::text, relid::int8::float8 AS relid, op::text,
      (extract(epoch FROM at) * 1000000)::int8::text AS at, shape::text, old_row, new_row`;
    const wanted = `${since(batch.from, batch.above)} AND id <= ${digits(batch.upTo)}
      AND pg_visible_in_snapshot(xid, '${parseSnapshot(batch.to) && batch.to}'::pg_snapshot)`;
    if (batch.rows <= this.#source.batchRows && batch.bytes <= PAGE_BYTES) {
      yield await query<AuditRow>(
        `SELECT ${columns} FROM ${this.#changes} WHERE ${wanted} ORDER BY changes.id, changes.sub`,
      );
      return;
    }
    await query("CLOSE ALL");
    await query(
      `DECLARE tributary_batch NO SCROLL CURSOR WITH HOLD FOR
       SELECT xid::text, id::text, sub, coalesce(octet_length(old_row), 0) + coalesce(octet_length(new_row), 0) AS bytes
         FROM ${this.#changes} WHERE ${wanted} ORDER BY changes.id, changes.sub`,
    );
    for (;;) {
      const places = await query<AuditPlace>(`FETCH ${this.#source.batchRows} FROM tributary_batch`);
      if (places.length === 0) break;
      for (const page of inPages(places)) {
        yield await query<AuditRow>(
          `SELECT ${columns} FROM unnest($1::xid8[], $2::int8[], $3::int4[]) p (xid, id, sub)
             JOIN ${this.#changes} USING (xid, id, sub) ORDER BY p.id, p.sub`,
          [page.map(({ xid }) => xid), page.map(({ id }) => id), page.map(({ sub }) => sub)],
        );
      }
    }
    await query("CLOSE tributary_batch");
  }

  async #learn(query: Query, rows: readonly AuditRow[]): Promise<void> {
    const unknown = new Map(
      rows.filter((row) => !this.#shapes.has(shapeKey(row))).map((row) => [row.shape, row]),
    );
    if (unknown.size === 0) return;
    const found = await query<{ id: string; shape: string }>(
      `SELECT id::text, shape FROM ${this.#shapesTable} WHERE id = ANY ($1::int8[])`,
      [[...unknown.keys()]],
    );
    const texts = new Map(found.map(({ id, shape }) => [id, shape]));
    for (const row of rows) {
      if (this.#shapes.has(shapeKey(row))) continue;
      const text = texts.get(row.shape);
      if (text === undefined) throw this.#unreadable(row, "its shape is missing");
      this.#shapes.set(shapeKey(row), readShape(text, row.relid, this.#source, this.#version));
    }
  }

  /** A partition that is made later has the row triggers of its table, but none for its truncate. */
  async #lookForPartitions(query: Query): Promise<void> {
    if (performance.now() - this.#lookedAt < PARTITIONS_EVERY_MS) return;
    const found = await query<{ schema: string; table: string }>(UNWATCHED_PARTITIONS, [this.#source.schema]);
    this.#lookedAt = performance.now();
    const names = found.map(formatTable);
    const fresh = names.filter((name) => !this.#unwatched.has(name));
    this.#unwatched.clear();
    for (const name of names) this.#unwatched.add(name);
    if (fresh.length === 0) return;
    const more = fresh.length > MOST_NAMES ? ` and ${fresh.length - MOST_NAMES} more` : "";
    this.#log.warn(
      `partitions without a trigger for their truncate: ${fresh.slice(0, MOST_NAMES).join(", ")}${more}; a TRUNCATE of one of them alone will not be seen`,
      { code: "TRIGGERS_PARTITION", remedy: `As the owner of the tables: ${INSTALL}` },
    );
  }

  /** Undefined: no change, but something that is said. */
  #change(row: AuditRow, commitLsn: bigint): RowChange | undefined {
    const op = OPERATIONS[row.op];
    const audit = this.#shapes.get(shapeKey(row)) as AuditShape;
    if (row.op === UNREAD) {
      this.#log.warn(
        `rows of a partition of ${formatTable(audit.shape)} went with its TRUNCATE, and not all could be read before: their deletes may be missing (audit row ${row.id})`,
        {
          code: "TRIGGERS_TRUNCATED",
          remedy: `Compare, and remove from the sinks what the table does not have: tributary verify --table ${shellWord(formatTable(audit.shape))} --consumer <consumer>`,
        },
      );
      return undefined;
    }
    if (op === undefined) throw this.#unreadable(row, `its operation is "${row.op}"`);
    try {
      const values = (text: string | null) => keptValues(audit, parseRecord(text ?? ""));
      const change: RowChange["change"] =
        op === "insert"
          ? { op, row: values(row.new_row) }
          : op === "update"
            ? { op, old: values(row.old_row), row: values(row.new_row) }
            : op === "delete"
              ? { op, old: values(row.old_row) }
              : { op };
      const xid = Number(BigInt(row.xid) & 0xffff_ffffn);
      return {
        commitLsn,
        lsn: BigInt(row.id),
        xid,
        timeUs: BigInt(row.at),
        table: audit.shape,
        change,
      };
    } catch (error) {
      throw this.#unreadable(row, (error as Error).message);
    }
  }

  #unreadable({ xid, id }: AuditRow, why: string): TablesReadError {
    return new TablesReadError({
      message: `the audit row (xid ${xid}, id ${id}) of ${this.#changes} cannot be read: ${why}`,
      remedy:
        "Only the trigger function may write there. Repair the row or delete it by hand, and start again.",
    });
  }
}

/** A shape belongs to a table: two partitions may be alike in name after a swap. */
function shapeKey({ relid, shape }: AuditRow): string {
  return `${relid}/${shape}`;
}

/**
 * Not visible in `from`: by ranges of the primary key, so that what was read before costs nothing.
 *
 * Or above an id: after a crash PostgreSQL gives transaction ids again that it had given to transactions that left no trace,
 * and the snapshot before it took those for ended. Their rows have higher ids than all that was committed before.
 */
function since(from: string | null, above: string | null): string {
  if (from === null) return "true";
  const { xmax, running } = parseSnapshot(from);
  const late = running.length === 0 ? "" : ` OR xid = ANY ('{${running.join()}}'::xid8[])`;
  return `(xid >= '${xmax}'::xid8${late}${above === null ? "" : ` OR id > ${digits(above)}`})`;
}

function digits(text: string): string {
  return BigInt(text).toString();
}

function checkBehind(before: string, now: string): void {
  const [was, is] = [parseSnapshot(before).xmax, parseSnapshot(now).xmax];
  if (is < was) throw serverBehind(is, was);
}
