import type pg from "pg";
import { connect, disconnect } from "./connection.ts";
import { isServerEnding } from "./connection-errors.ts";
import type { PostgresConnectionOptions } from "./connection-options.ts";

/** Dependencies of `SideConnection`. */
export interface SideConnectionOptions {
  readonly connection: PostgresConnectionOptions;
  readonly signal: AbortSignal;
  /**
   * The server ended this session and takes no new one: it is shutting down or gone. Its fast stop waits for walsenders,
   * which wait for us (rule 22).
   */
  readonly onServerEnding: (error: Error) => void;
}

/** Time that one statement may take until its session is given up. Below the 30 s of a catalog look-up: when that is tried again, it finds another session. */
const DEADLINE_MS = 20_000;

/**
 * An ordinary session beside the replication link: catalog look-ups and looks at the slot. Opened anew when it
 * was lost; also the place where a shutdown of the server is heard while the link is not read.
 */
export class SideConnection {
  readonly #options: SideConnectionOptions;
  #session: Promise<pg.Client> | undefined;
  #closed = false;

  constructor(options: SideConnectionOptions, first?: pg.Client) {
    this.#options = options;
    if (first) {
      this.#session = Promise.resolve(first);
      this.#watch(first);
    }
  }

  /**
   * Runs one statement; fails with the session's error, and the next call opens another session. One that does not answer in
   * time is cut: what it was asked for later waits behind the same silence (a half-open link, a lock on the catalog).
   */
  async query(sql: string, values: unknown[] = []): Promise<{ readonly rows: readonly unknown[] }> {
    const session = this.#open();
    const client = await session;
    const late = setTimeout(() => {
      this.#forget(session);
      client.connection.stream.destroy(new Error(`no answer within ${DEADLINE_MS / 1000} s`));
    }, DEADLINE_MS);
    try {
      return await client.query<pg.QueryResultRow>(sql, values);
    } finally {
      clearTimeout(late);
    }
  }

  /** Cuts a session that does not answer; the next query opens another. */
  reset(): void {
    const session = this.#session;
    this.#session = undefined;
    session?.then((client) => client.connection.stream.destroy()).catch(() => {});
  }

  async close(): Promise<void> {
    this.#closed = true;
    const client = await this.#session?.catch(() => undefined);
    if (client) await disconnect(client);
  }

  #open(): Promise<pg.Client> {
    if (this.#closed) return Promise.reject(new Error("the side connection is closed"));
    if (!this.#session) {
      const session = connect(this.#options.connection, { signal: this.#options.signal });
      this.#session = session;
      session.then(
        (client) => this.#watch(client),
        (error: Error) => {
          this.#forget(session);
          if (isServerEnding(error)) this.#options.onServerEnding(error);
        },
      );
    }
    return this.#session;
  }

  #watch(client: pg.Client): void {
    const session = this.#session;
    client.once("end", () => {
      if (session) this.#forget(session);
      if (this.#closed || this.#session || this.#options.signal.aborted) return;
      this.#open().catch(() => {});
    });
  }

  #forget(session: Promise<pg.Client>): void {
    if (this.#session === session) this.#session = undefined;
  }
}
