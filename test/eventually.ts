import { setTimeout as delay } from "node:timers/promises";

/**
 * Waits until `condition` gives a value that is neither undefined nor false, and returns it. It is asked again
 * every 20 ms; an error it throws counts as "not yet" and is told at the end.
 *
 * @throws Error that says what was waited for, how long, and the last value or error.
 */
export async function eventually<T>(
  condition: () => T | Promise<T>,
  { what, deadlineMs = 60_000 }: { what: string | (() => string); deadlineMs?: number },
): Promise<Exclude<T, undefined | false>> {
  const started = performance.now();
  let last: unknown;
  do {
    try {
      const value = await condition();
      if (value !== undefined && value !== false) return value as Exclude<T, undefined | false>;
      last = value;
    } catch (error) {
      last = error;
    }
    await delay(20);
  } while (performance.now() - started < deadlineMs);
  throw new Error(
    `waited ${deadlineMs} ms for ${typeof what === "string" ? what : what()}; last: ${String(last)}`,
    {
      cause: last instanceof Error ? last : undefined,
    },
  );
}
