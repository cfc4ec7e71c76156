import { FINISH_TRANSACTION_MS } from "../../change/change-stream.ts";

/** The ways in which a stream ends: it is closed, it is asked to stop, or something fails for good. */
export class StreamEnd {
  readonly #ending = new AbortController();
  readonly #impatience = new AbortController();
  readonly #onStop: () => void;
  /** Runs from the wish to stop on. */
  #patience: NodeJS.Timeout | undefined;
  #failure: unknown;

  /** Aborts when the stream was closed or failed. */
  readonly ending: AbortSignal = this.#ending.signal;
  /** Aborts when nothing more is begun: what was begun may come to its end. */
  readonly until: AbortSignal;
  /** Aborts when nothing more is given, whatever is half done. */
  readonly cut = AbortSignal.any([this.#ending.signal, this.#impatience.signal]);

  /** `onStop`: called when `until` or `cut` aborts. */
  constructor(signal: AbortSignal, onStop: () => void) {
    this.#onStop = onStop;
    this.until = AbortSignal.any([signal, this.ending]);
    this.until.addEventListener("abort", () => this.#stop(), { once: true });
  }

  /** Ends the stream with an error; the first one counts. */
  fail(error: unknown): void {
    this.#failure ??= error;
    this.#ending.abort();
  }

  /** @throws what the stream has failed with. */
  throwIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  close(): void {
    this.#ending.abort();
    clearTimeout(this.#patience);
  }

  #stop(): void {
    this.#patience = setTimeout(() => {
      this.#impatience.abort();
      this.#onStop();
    }, FINISH_TRANSACTION_MS);
    this.#onStop();
  }
}
