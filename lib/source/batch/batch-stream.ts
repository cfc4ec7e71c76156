import { setTimeout as delay } from "node:timers/promises";
import type pg from "pg";
import * as z from "zod";
import type { ChangeStream, SourceMessage } from "../../change/change-stream.ts";
import { TributaryError } from "../../change/tributary-error.ts";
import type { Pipeline } from "../../definition/definition.ts";
import { NEW_EPOCH } from "../../definition/new-epoch.ts";
import { routeTables } from "../../definition/route.ts";
import { failpoint } from "../../failpoint.ts";
import type { Log } from "../../log.ts";
import { readOldestTransaction } from "../postgres/catalog/oldest-transaction.ts";
import { pgTypeCatalog } from "../postgres/catalog/type-catalog.ts";
import { ChangeDecoder } from "../postgres/decode/change-decoder.ts";
import { connect, disconnect } from "../postgres/link/connection.ts";
import type { PostgresConnectionOptions } from "../postgres/link/connection-options.ts";
import { reconnectDelayMs } from "../postgres/link/liveness.ts";
import type { ReadingRecord, ReadingState } from "../reading-record.ts";
import type { TablesStatus } from "../tables-status.ts";
import { explainReadError, ReadingChangedError, TablesLinkError } from "./batch-errors.ts";
import type { BatchPlan, BatchReader, Query } from "./batch-reader.ts";
import { flushLog } from "./durable-log.ts";
import { type ReadShape, type RowChange, RowMessages } from "./row-messages.ts";
import { storedKeys, TableKeys } from "./table-keys.ts";

/** Options of `BatchStream.open`. */
export interface BatchStreamOptions {
  readonly connection: PostgresConnectionOptions;
  readonly pipeline: Pipeline;
  readonly record: ReadingRecord;
  readonly reader: BatchReader;
  /** Between two looks when there was nothing, in milliseconds. */
  readonly intervalMs: number;
  readonly signal: AbortSignal;
  readonly log: Log;
  readonly onStatus?: ((status: TablesStatus) => void) | undefined;
}

const place = z.object({
  after: z.unknown(),
  batch: z.object({ first: z.string(), bounds: z.unknown(), after: z.unknown() }).optional(),
  keys: storedKeys.optional(),
  /** Types of the keys' columns, by table: of readers that read on in the order of keys. */
  types: storedKeys.optional(),
});

/** A batch whose bounds are durable. */
interface OpenBatch extends BatchPlan {
  readonly first: bigint;
}

/** Messages decoded of a page. */
interface Decoded {
  readonly messages: readonly SourceMessage[];
  readonly last: bigint | undefined;
  /** Why the rest of the page was not decoded, if so. */
  readonly failure: unknown;
}

/** A statement that has no answer by then is given up with its session. */
const QUERY_DEADLINE_MS = 600_000;
const ABORT_GRACE_MS = 2_000;
const CLOSE_DEADLINE_MS = 10_000;
const STATUS_EVERY_MS = 5_000;

/**
 * The change stream over a reader of tables. One batch at a time: its bounds are recorded, its changes are given, all of
 * them acknowledged; only then comes the next. What was recorded and not acknowledged is read again after a crash.
 */
export class BatchStream implements ChangeStream {
  readonly changes: AsyncIterable<readonly SourceMessage[]>;
  readonly #options: BatchStreamOptions;
  readonly #decoder: ChangeDecoder;
  readonly #messages = new RowMessages();
  /** Stored with the place, and compared with those of each change. */
  readonly #keys: TableKeys;
  /** Of each table's last change. */
  readonly #shapes = new Map<number, ReadShape>();
  readonly #ending = new AbortController();
  #client: pg.Client | undefined;
  #state: ReadingState;
  #after: unknown;
  #batch: OpenBatch | undefined;
  /** `commitLsn` of the last change that was given. */
  #given: bigint;
  /** Everything of the batch was given. */
  #whole = false;
  #acknowledged: bigint;
  #onAcknowledged: (() => void) | undefined;
  /** A statement runs. */
  #busy = false;
  #reconnects = 0;
  #attempts = 0;
  #cannotFlush = false;
  #toldAt = Number.NEGATIVE_INFINITY;
  #oldestTransactionSeconds: number | undefined;
  #closed: Promise<void> | undefined;

  /**
   * Opens the stream where the record says, or at the beginning.
   * @throws ReadingChangedError when the record is of another source; the errors of `connect` and of the record.
   */
  static async open(options: BatchStreamOptions): Promise<BatchStream> {
    const { record, reader, connection } = options;
    const found = await record.read();
    if (found) checkRecord(found, reader.kind, connection.database);
    const state: ReadingState = found ?? {
      kind: reader.kind,
      epoch: (await record.newEpoch())?.epoch ?? 1,
      database: connection.database,
      confirmedLsn: 0n,
      place: { after: null },
    };
    if (!found) await record.write(state);
    const stream = new BatchStream(options, state);
    await stream.#resume();
    await stream.#connect(options.signal);
    options.log.info(`reading changes by ${reader.kind}, in epoch ${state.epoch}`);
    return stream;
  }

  private constructor(options: BatchStreamOptions, state: ReadingState) {
    const { pipeline, reader, signal } = options;
    const { name, topics } = pipeline;
    const { tables, exclude } = pipeline.source;
    this.#options = options;
    this.#state = state;
    this.#given = state.confirmedLsn;
    this.#acknowledged = state.confirmedLsn;
    const { after, batch, keys = {}, types: keyTypes = {} } = place.parse(state.place);
    const route = routeTables(pipeline);
    this.#keys = new TableKeys({ keys, types: keyTypes }, route, options.log);
    this.#after = after;
    this.#batch = batch && { ...batch, after: batch.after, bounds: batch.bounds, first: BigInt(batch.first) };
    const until = AbortSignal.any([signal, this.#ending.signal]);
    const types = pgTypeCatalog(async (sql, values) => ({ rows: await this.#query(sql, values) }), {
      signal: until,
    });
    this.#decoder = new ChangeDecoder({
      pipeline: { name, topics, source: { tables, exclude, messages: [] } },
      mode: reader.mode,
      database: state.database,
      epoch: state.epoch,
      route,
      catalog: {
        resolve: (oids) => types.resolve(oids),
        // Of a table its shape says all: it may be another one by now, or gone.
        relation: async (oid) => {
          const { primaryKey = [], wholeOldRows = true } = this.#messages.told(oid) ?? {};
          return { primaryKey, ancestors: [], wholeOldRows };
        },
      },
      encoding: "utf-8",
    });
    until.addEventListener(
      "abort",
      () => {
        this.#onAcknowledged?.();
        // A statement that takes long must not hold the end.
        setTimeout(() => this.#busy && this.#client?.connection.stream.destroy(), ABORT_GRACE_MS).unref();
      },
      { once: true },
    );
    this.changes = this.#read(until);
  }

  async #resume(): Promise<void> {
    const stored = { after: this.#after, batch: this.#batch };
    const resumed = (await this.#options.reader.resume?.(stored, this.#keys)) ?? stored;
    // Also where only keys are new: nothing may be recorded before one of them is another one.
    if (resumed === stored && !this.#keys.changed) return;
    // The same batch or none: another one in its place would stand at the same positions.
    const batch = resumed.batch && this.#batch;
    await this.#record({ after: resumed.after, batch: batch && { ...batch, first: batch.first.toString() } });
    this.#after = resumed.after;
    this.#batch = batch;
  }

  acknowledge(lsn: bigint): void {
    if (lsn > this.#acknowledged) this.#acknowledged = lsn;
    this.#onAcknowledged?.();
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.#ending.abort();
    const giveUp = new AbortController();
    await Promise.race([
      this.#finish().catch(() => {}),
      delay(CLOSE_DEADLINE_MS, undefined, { signal: giveUp.signal }).catch(() => {}),
    ]);
    giveUp.abort();
    if (this.#client) await disconnect(this.#client);
    this.#client = undefined;
    await this.#tell(false);
  }

  async *#read(until: AbortSignal): AsyncGenerator<readonly SourceMessage[]> {
    while (!until.aborted) {
      let failure: unknown;
      try {
        if (!this.#client) await this.#connect(until);
        if (!this.#batch && !(await this.#plan(until))) continue;
        for await (const page of this.#pages()) {
          const { messages, last, failure } = await this.#decode(page);
          // Also after a failure: the decoder does not give them again.
          if (last !== undefined) this.#given = last;
          if (messages.length > 0) yield messages;
          if (failure !== undefined) throw failure;
          if (until.aborted) return;
        }
        this.#whole = true;
        await this.#acknowledgedTo(this.#given, until);
        await this.#finish();
      } catch (error) {
        failure = error;
      }
      if (failure !== undefined && !until.aborted) await this.#recover(failure, until);
    }
  }

  /** Looks for the next batch and records its bounds; false after the wait when there is none. */
  async #plan(until: AbortSignal): Promise<boolean> {
    const { reader, intervalMs } = this.#options;
    await this.#tell(true);
    const plan = await reader.plan(this.#query, this.#after);
    this.#attempts = 0;
    if (!plan) {
      await delay(intervalMs, undefined, { signal: until }).catch(() => {});
      return false;
    }
    await this.#flush();
    const batch = { ...plan, first: this.#state.confirmedLsn + 1n };
    await this.#record({ after: this.#after, batch: { ...plan, first: batch.first.toString() } });
    failpoint("batch-recorded");
    this.#batch = batch;
    this.#whole = false;
    return true;
  }

  /** Flushes the server's log: transactions that the plan takes for ended must stay so after a crash of the server. */
  async #flush(): Promise<void> {
    if (this.#cannotFlush) return;
    const refusal = await flushLog(this.#query);
    if (refusal === undefined) return;
    this.#cannotFlush = true;
    this.#options.log.warn(
      `the server does not tell what of its log is on disk (${refusal}): changes right after a crash of it may be missed`,
      { remedy: "On Aurora set rds.logical_replication to 1." },
    );
  }

  async *#pages(): AsyncGenerator<readonly RowChange[]> {
    const { bounds, first } = this.#batch as OpenBatch;
    for await (const page of this.#options.reader.read(this.#query, bounds, first)) {
      // After another connection the batch is read anew, from its beginning.
      const fresh = page.filter((change) => change.commitLsn > this.#given);
      if (fresh.length > 0) yield fresh;
    }
  }

  /** Decodes a page as far as it can be: `last` is the `commitLsn` of the last whole change. */
  async #decode(page: readonly RowChange[]): Promise<Decoded> {
    const messages: SourceMessage[] = [];
    let last: bigint | undefined;
    let failure: unknown;
    try {
      for (const change of page) {
        this.#compareKey(change);
        for (const payload of this.#messages.of(change)) {
          const wait = this.#decoder.decode(payload, change.lsn, messages);
          if (wait) await wait;
        }
        last = change.commitLsn;
      }
    } catch (error) {
      failure = error;
    }
    // Each change is a transaction of its own to the decoder; one commit a page is enough to acknowledge.
    const commit = messages.findLastIndex(({ kind }) => kind === "commit");
    const kept = messages.filter(({ kind }, i) => kind === "change" || i === commit);
    return { messages: kept, last, failure };
  }

  #compareKey({ table, lsn }: RowChange): void {
    if (this.#shapes.get(table.oid) === table) return;
    this.#shapes.set(table.oid, table);
    this.#keys.see(table, table.primaryKey, `the change at ${lsn}`);
  }

  /** The batch is acknowledged: the record says so, and what was kept for it goes. */
  async #finish(): Promise<void> {
    const batch = this.#batch;
    if (!batch || !this.#whole || this.#acknowledged < this.#given) return;
    await this.#options.reader.acknowledged?.(batch.bounds);
    this.#state = { ...this.#state, confirmedLsn: this.#given };
    await this.#record({ after: batch.after });
    this.#after = batch.after;
    this.#batch = undefined;
    await this.#options.reader.recorded?.(this.#query, this.#after);
  }

  async #record(next: Omit<z.input<typeof place>, "keys" | "types">): Promise<void> {
    const state = { ...this.#state, place: { ...next, ...this.#keys.stored } };
    await this.#options.record.write(state);
    this.#state = state;
    this.#keys.changed = false;
  }

  async #acknowledgedTo(lsn: bigint, until: AbortSignal): Promise<void> {
    while (this.#acknowledged < lsn && !until.aborted) {
      await new Promise<void>((resolve) => {
        this.#onAcknowledged = resolve;
      });
    }
    until.throwIfAborted();
  }

  async #connect(until: AbortSignal): Promise<void> {
    this.#client = await connect(this.#options.connection, { signal: until });
    this.#decoder.reconnected();
    this.#messages.forget();
    // Another server may answer now, or this one in another state.
    this.#cannotFlush = false;
    this.#options.reader.connected?.();
    await this.#tell(true);
  }

  readonly #query: Query = async <Row extends pg.QueryResultRow>(
    sql: string,
    values: readonly unknown[] = [],
  ): Promise<readonly Row[]> => {
    const client = this.#client;
    if (!client) throw new TablesLinkError({ message: "the session is closed", remedy: "Nothing to do." });
    const deadline = setTimeout(
      () => client.connection.stream.destroy(new Error("no answer from the server in time")),
      QUERY_DEADLINE_MS,
    );
    this.#busy = true;
    try {
      return (await client.query<Row>(sql, [...values])).rows;
    } finally {
      this.#busy = false;
      clearTimeout(deadline);
    }
  };

  /** Throws what another attempt cannot heal; otherwise waits, and the next round opens another session. */
  async #recover(failure: unknown, until: AbortSignal): Promise<void> {
    const error = explainReadError(failure);
    if (this.#client) {
      this.#client.connection.stream.destroy();
      this.#client = undefined;
      this.#reconnects++;
    }
    if (!(error instanceof TributaryError) || error.retry !== "retry") {
      this.#ending.abort();
      throw error;
    }
    const waitMs = reconnectDelayMs(this.#attempts++, Math.random());
    this.#options.log.warn(error.message, { code: error.code, retryInMs: waitMs, waitsFor: "database" });
    await this.#tell(false);
    await delay(waitMs, undefined, { signal: until }).catch(() => {});
  }

  async #tell(connected: boolean): Promise<void> {
    const { onStatus } = this.#options;
    if (!onStatus) return;
    if (connected && performance.now() - this.#toldAt >= STATUS_EVERY_MS) {
      this.#toldAt = performance.now();
      const oldest = await readOldestTransaction(async (sql) => ({ rows: await this.#query(sql) }));
      this.#oldestTransactionSeconds = oldest?.seconds;
    }
    onStatus({
      kind: "tables",
      connected,
      reconnects: this.#reconnects,
      oldestTransactionSeconds: this.#oldestTransactionSeconds,
    });
  }
}

/** Checks that a record is of this kind of source and of this database. @throws ReadingChangedError */
export function checkRecord(
  state: Pick<ReadingState, "kind" | "database">,
  kind: string,
  database: string,
): void {
  const changes = [
    ["source.kind", state.kind, kind],
    ["database", state.database, database],
  ].filter(([, stored, now]) => stored !== now);
  if (changes.length === 0) return;
  throw new ReadingChangedError({
    message: `the pipeline was started with another source: ${changes.map(([what, stored, now]) => `${what} was "${stored}", is now "${now}"`).join("; ")}`,
    remedy: `Put it back, or begin a new epoch: ${NEW_EPOCH}`,
  });
}
