import type { Writable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { abortOnSignals } from "../local/stop-signal.ts";
import { whenReaderLeaves } from "./closed-pipe.ts";

/** At the end a reader that stands still gets this long to take the last lines. */
const LAST_WRITE_MS = 1000;

/** Resolves when the text was handed to the system; false when nobody reads any more, or not in time at the end. */
export async function write(output: Writable, text: string, signal: AbortSignal): Promise<boolean> {
  const written = Promise.withResolvers<boolean>();
  output.write(text, (error) => {
    if (!error) written.resolve(true);
    else if ((error as NodeJS.ErrnoException).code === "EPIPE") written.resolve(false);
    else written.reject(error);
  });
  const giveUp = () =>
    void delay(LAST_WRITE_MS, undefined, { ref: false }).then(() => written.resolve(false));
  signal.addEventListener("abort", giveUp, { once: true });
  if (signal.aborted) giveUp();
  try {
    return await written.promise;
  } finally {
    signal.removeEventListener("abort", giveUp);
  }
}

/** The end that the user or the reader wants. */
export interface Ending extends Disposable {
  /** Aborts when the user or the reader wants no more. */
  readonly signal: AbortSignal;
}

/** Ends at Ctrl-C, SIGTERM, SIGHUP, or when nobody reads the output any more. */
export function endOnSignals(output: Writable): Ending {
  const controller = new AbortController();
  const end = () => controller.abort();
  abortOnSignals(controller);
  output.on("error", end);
  const stopWatching = whenReaderLeaves(end);
  return {
    signal: controller.signal,
    [Symbol.dispose]: () => {
      stopWatching();
      // What a reader that stands still has not taken must not hold the process.
      if (output !== process.stdout) output.destroy();
    },
  };
}
