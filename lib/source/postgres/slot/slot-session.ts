import { setTimeout as delay } from "node:timers/promises";
import type pg from "pg";
import type { Log } from "../../../log.ts";
import { checkPublication, readPublicationOid } from "../contract/publication-watch.ts";
import { connect, disconnect } from "../link/connection.ts";
import type { PostgresConnectionOptions } from "../link/connection-options.ts";
import { explainStreamError } from "../link/replication-errors.ts";
import { SlotInUseError } from "../postgres-errors.ts";
import {
  checkHistory,
  identifySystem,
  readSlot,
  type SlotFacts,
  type SystemFacts,
  timelineHistory,
} from "./slot.ts";
import type { SlotRecord, SlotState } from "./slot-record.ts";

/** The slot, and the time that another reader of it is waited for. */
export interface SlotSessionOptions {
  readonly connection: PostgresConnectionOptions;
  readonly walSenderTimeoutMs: number;
  readonly takeoverMs: number;
  /** Tells whether the lease is still ours. */
  readonly record: Pick<SlotRecord, "confirm">;
  readonly log: Log;
}

/** A replication session to a slot that nobody reads, and whose history is ours. */
export interface SlotSession {
  readonly client: pg.Client;
  readonly system: SystemFacts;
  readonly slot: SlotFacts;
  /** Ends of the ancestors of its timeline, if that is not the record's. */
  readonly history: ReadonlyMap<number, bigint>;
}

const IN_USE_POLL_MS = 250;
/** A wait is told when it begins, when its reason changes, and this often. */
const TELL_EVERY_MS = 10_000;

/**
 * Opens a session to the slot of a record, and gives it to `start`; a slot in use is waited for, also where somebody is quicker
 * than `start`. Where it throws, the session is at its end. `first`: one that is there already, for the first try.
 *
 * @throws SlotInUseError after `takeoverMs`; what tells that the slot, its publication or the server's history is not the
 * record's (rule 19), or that the lease was lost where that is why; what `explainStreamError` makes of the server's errors.
 */
export async function openSlotSession<T>(
  options: SlotSessionOptions,
  state: () => SlotState,
  start: (session: SlotSession) => Promise<T>,
  signal: AbortSignal,
  first?: pg.Client,
): Promise<T> {
  const deadline = performance.now() + options.takeoverMs;
  let client = first;
  let told: { line: string; at: number } | undefined;
  for (;;) {
    try {
      return await tryOpen(options, state, start, signal, client);
    } catch (error) {
      client = undefined;
      const now = performance.now();
      if (!(error instanceof SlotInUseError) || now >= deadline) throw error;
      if (told?.line !== error.message || now - told.at >= TELL_EVERY_MS) {
        told = { line: error.message, at: now };
        options.log.info(`waiting: ${error.message}`, { waitsFor: "slot" });
      }
      await delay(IN_USE_POLL_MS * (1 + Math.random()), undefined, { signal });
    }
  }
}

async function tryOpen<T>(
  { connection, walSenderTimeoutMs, record }: SlotSessionOptions,
  state: () => SlotState,
  start: (session: SlotSession) => Promise<T>,
  signal: AbortSignal,
  first: pg.Client | undefined,
): Promise<T> {
  const client = first ?? (await connect(connection, { replication: true, walSenderTimeoutMs, signal }));
  const expected = state();
  try {
    const query = (sql: string) => client.query(sql);
    const system = await identifySystem(client);
    const moved = system.timeline !== expected.timeline;
    const history = moved ? await timelineHistory(client, system.timeline) : new Map<number, bigint>();
    const slot = await readSlot(query, expected.slot);
    checkHistory(expected, slot, system, history);
    const publication = await readPublicationOid(query, expected.publication);
    checkPublication(expected.publication, expected.publicationOid, publication);
    return await start({ client, system, slot, history });
  } catch (error) {
    await disconnect(client);
    const failure = explainStreamError(error, expected.slot, "opening");
    // A task that was taken over finds its successor's doing: nothing that an operator must act on.
    if (failure.retry === "stop") await record.confirm();
    throw failure;
  }
}
