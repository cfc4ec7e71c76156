import { pauseKey } from "../../state/state-key.ts";
import { ConsumerPausedError } from "../consume-errors.ts";
import type { ConsumerTable } from "../fence/consumer-table.ts";

/** Milliseconds for which a process may remember that its consumer is not paused (rule 62). */
export const PAUSE_SEEN_MS = 5_000;

/** The pause of a consumer, as its functions ask for it. */
export class PauseFlag {
  readonly #table: ConsumerTable;
  /** When the consumer was last seen not to be paused. */
  #runningAt = 0;

  constructor(table: ConsumerTable) {
    this.#table = table;
  }

  /** Returns the error that says who paused the consumer; undefined: nobody has. @throws FenceUnavailableError */
  async look(signal: AbortSignal, rememberMs = PAUSE_SEEN_MS): Promise<ConsumerPausedError | undefined> {
    // By the clock on the wall: a function that is frozen has another one that stands still.
    const now = Date.now();
    if (Math.abs(now - this.#runningAt) < rememberMs) return undefined;
    const { pipeline, consumer } = this.#table;
    const table = this.#table.until(signal, "read the pause");
    const item = await table.get(pauseKey(pipeline, `consumer#${consumer}`));
    if (item) return new ConsumerPausedError(consumer, item.told?.S ?? "");
    this.#runningAt = now;
    return undefined;
  }
}
