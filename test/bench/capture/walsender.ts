import { setTimeout as delay } from "node:timers/promises";
import type { Backlog } from "./backlog.ts";
import { cpuSecondsOf } from "./process.ts";

const LOOK_MS = 200;
const START_LOOK_MS = 10;
const START_DEADLINE_MS = 120_000;

/** Runs `read`, and gives beside its result the CPU seconds that the walsender of the slot has used meanwhile. */
export async function withWalsender<T>(
  backlog: Pick<Backlog, "query">,
  slot: string,
  read: () => Promise<T>,
): Promise<T & { readonly walsenderSeconds: number }> {
  let seconds = 0;
  let over = false;
  const watch = async () => {
    while (!over) {
      const pid = await walsenderOf(backlog, slot);
      // The same process until it ends: one question is enough.
      if (pid !== undefined) {
        for (; !over; await delay(LOOK_MS)) {
          try {
            seconds = cpuSecondsOf(pid);
          } catch {
            return;
          }
        }
      }
      await delay(LOOK_MS);
    }
  };
  const watching = watch();
  try {
    const found = await read();
    return { ...found, walsenderSeconds: seconds };
  } finally {
    over = true;
    await watching;
  }
}

/** Resolves when a client has begun to stream from the slot: milliseconds since 1970. For clients that do not tell. */
export async function streamingBegins(
  backlog: Pick<Backlog, "query">,
  slot: string,
  signal: AbortSignal,
): Promise<number> {
  const deadline = AbortSignal.any([signal, AbortSignal.timeout(START_DEADLINE_MS)]);
  while ((await walsenderOf(backlog, slot)) === undefined) {
    await delay(START_LOOK_MS, undefined, { signal: deadline });
  }
  return Date.now();
}

async function walsenderOf(backlog: Pick<Backlog, "query">, slot: string): Promise<number | undefined> {
  const [row] = await backlog.query(
    `SELECT active_pid AS pid FROM pg_replication_slots WHERE slot_name = '${slot}'`,
  );
  return typeof row?.pid === "number" ? row.pid : undefined;
}
