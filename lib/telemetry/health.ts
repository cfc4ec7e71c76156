import { stat, writeFile } from "node:fs/promises";

/**
 * Names the file whose age tells whether the capture task lives; the container's image sets it. Without it none is written.
 * On a read-only root file system its directory must be a volume of its own.
 */
export const HEALTH_FILE_VARIABLE = "TRIBUTARY_HEALTH_FILE";

const BEAT_MS = 5_000;

/** A file older than this means that the process hangs: twelve beats were missed. */
export const STALE_MS = 60_000;

/**
 * Touches the health file while the process's event loop turns, and says nothing else: a task that waits for its lease, for
 * the database or for Kinesis is alive, however far it lags, and starting it anew would only cost more.
 */
export class HealthBeat implements Disposable {
  readonly #timer: NodeJS.Timeout;
  #writing = false;
  #failed = false;

  /** `onFailure` hears of the first write that fails; the file's age tells the rest. */
  constructor(file: string, onFailure: (error: Error) => void, everyMs = BEAT_MS) {
    const beat = async () => {
      if (this.#writing) return;
      this.#writing = true;
      try {
        await writeFile(file, `${new Date().toISOString()}\n`);
        this.#failed = false;
      } catch (error) {
        if (!this.#failed) onFailure(error as Error);
        this.#failed = true;
      }
      this.#writing = false;
    };
    void beat();
    this.#timer = setInterval(() => void beat(), everyMs);
    this.#timer.unref();
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}

/** Returns true if the health file was touched lately; a missing one was not. */
export async function isAlive(file: string, now = Date.now()): Promise<boolean> {
  try {
    return now - (await stat(file)).mtimeMs < STALE_MS;
  } catch {
    return false;
  }
}
