import { setTimeout as delay } from "node:timers/promises";
import type { Backlog } from "./backlog.ts";
import { cpuSecondsOf } from "./process.ts";

const LOOK_MS = 200;

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
      const [row] = await backlog.query(
        `SELECT active_pid AS pid FROM pg_replication_slots WHERE slot_name = '${slot}'`,
      );
      // The same process until it ends: one question is enough.
      if (typeof row?.pid === "number") {
        for (const { pid } = row as { pid: number }; !over; await delay(LOOK_MS)) {
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
