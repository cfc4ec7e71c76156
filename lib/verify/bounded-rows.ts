import type { Socket } from "node:net";
import pg from "pg";

/** A row: each value as PostgreSQL prints it. */
export type Texts = readonly (string | null)[];

/** Of a value beside its text. */
const VALUE_BYTES = 32;
/** All values as PostgreSQL prints them. */
export const AS_TEXT: pg.CustomTypesConfig = { getTypeParser: () => (text: unknown) => text };

/**
 * The rows of a statement in batches of about `maxBytes`, whatever the size of each: when one is full the socket is not
 * read any further until the next one is asked for, and the server waits. What is left when the caller stops is passed over.
 */
export async function* boundedRows(
  client: pg.Client,
  text: string,
  maxBytes: number,
): AsyncGenerator<readonly Texts[]> {
  const config: pg.QueryArrayConfig = { text, rowMode: "array", types: AS_TEXT };
  const query = new pg.Query<Texts & pg.QueryResultRow>(config);
  let socket: Socket | undefined;
  const submit = query.submit.bind(query);
  query.submit = (connection) => {
    socket = connection.stream as Socket;
    return submit(connection);
  };
  let rows: Texts[] = [];
  let bytes = 0;
  let stopped = false;
  let change = Promise.withResolvers<void>();
  const done = Promise.withResolvers<void>();
  // Looked at below, once the rows before it were given.
  done.promise.catch(() => {});
  let over = false;
  const end = (settle: () => void) => {
    over = true;
    settle();
    change.resolve();
  };
  query.on("row", (row) => {
    if (stopped) return;
    rows.push(row);
    for (const value of row) bytes += VALUE_BYTES + (value?.length ?? 0);
    if (bytes < maxBytes) return;
    socket?.pause();
    change.resolve();
  });
  query.on("end", () => end(done.resolve));
  query.on("error", (error) => end(() => done.reject(error)));
  client.query(query);
  try {
    for (;;) {
      if (!over && bytes < maxBytes) await change.promise;
      if (over) await done.promise;
      const batch = rows;
      const last = over;
      rows = [];
      bytes = 0;
      change = Promise.withResolvers();
      if (batch.length > 0) yield batch;
      if (last) return;
      socket?.resume();
    }
  } finally {
    stopped = true;
    rows = [];
    socket?.resume();
    await done.promise;
  }
}
