import type pg from "pg";
import * as z from "zod";
import { TributaryError } from "../../../change/tributary-error.ts";
import { PostgresUnreachableError } from "../postgres-errors.ts";
import type {
  HostPort,
  PostgresConnectionOptions,
  ServerChoice,
  SessionOptions,
} from "./connection-options.ts";

/**
 * Several servers, one of which takes writes: it is looked for anew with each session. One that takes writes on an older timeline
 * than was seen before is an old primary that came back: its log is another history (rule 44).
 */
export class Hosts implements ServerChoice {
  readonly list: readonly HostPort[];
  #timeline = 0;
  #writer: HostPort | undefined;

  constructor(list: readonly HostPort[]) {
    this.list = list;
  }

  /** The newest timeline that a server of ours was seen on. */
  get timeline(): number {
    return this.#timeline;
  }

  /** No server on an older timeline is taken from now on. */
  noteTimeline(timeline: number): void {
    this.#timeline = Math.max(this.#timeline, timeline);
  }

  /** All but the one that was found to take writes; none before one was. */
  get others(): readonly HostPort[] {
    const writer = this.#writer;
    return writer === undefined ? [] : this.list.filter((host) => host !== writer);
  }

  /**
   * A session on the server that takes writes: `open` opens one on a given server.
   * @throws PostgresUnreachableError that says of each server why it was not taken; an error of all of them that stops.
   */
  async connect(
    options: PostgresConnectionOptions,
    session: SessionOptions,
    open: (options: PostgresConnectionOptions, session: SessionOptions) => Promise<pg.Client>,
  ): Promise<pg.Client> {
    const reasons: string[] = [];
    const failures: unknown[] = [];
    // Where it was found last, first.
    const writer = this.#writer;
    const order = writer ? [writer, ...this.others] : this.list;
    for (const place of order) {
      const at = `${place.host}:${place.port}`;
      try {
        const client = await open({ ...options, ...place, hosts: undefined }, session);
        const reason = await this.#refusal(client);
        if (reason === undefined) {
          this.#writer = place;
          return client;
        }
        client.connection.stream.destroy();
        reasons.push(`${at} ${reason}`);
      } catch (error) {
        session.signal?.throwIfAborted();
        failures.push(error);
        reasons.push(`${at}: ${(error as Error).message}`);
      }
    }
    // What stops at each of them stops: a wrong password is not waited for.
    const [first] = failures;
    if (failures.length === this.list.length && failures.every((error) => stops(error))) throw first;
    throw new PostgresUnreachableError({
      message: `none of the servers can be read from: ${reasons.join("; ")}`,
      remedy:
        "Nothing to do during a failover: it is tried again. Else look at the servers that DATABASE_URL names, one by one.",
      // What the server that was read from says: whether it is stopping is told by it.
      cause: (first as Error | undefined)?.cause ?? first,
    });
  }

  async #refusal(client: pg.Client): Promise<string | undefined> {
    const { rows } = await client.query(WRITER);
    const { standby, timeline } = writerRow.parse(rows[0]);
    if (standby || timeline === null) return "is a standby";
    if (timeline < this.#timeline)
      return `takes writes on timeline ${timeline}, and timeline ${this.#timeline} was read already: an old primary that came back`;
    this.noteTimeline(timeline);
    return undefined;
  }
}

/** A walfile's name begins with the timeline; a standby has none to write. */
const WRITER = `SELECT pg_is_in_recovery() AS standby, CASE WHEN NOT pg_is_in_recovery()
  THEN ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int END AS timeline`;

/** A walsender's answers are all text. */
const writerRow = z.object({
  standby: z.union([z.boolean(), z.string().transform((text) => text === "t")]),
  timeline: z.coerce.number().nullable(),
});

function stops(error: unknown): boolean {
  return error instanceof TributaryError && error.retry === "stop";
}
