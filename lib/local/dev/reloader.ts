import type { RunningConsumer } from "../consumer-host.ts";
import type { Display } from "../display.ts";
import type { LocalHost } from "../host.ts";
import { unlessAborted } from "../unless-aborted.ts";
import type { Bundle, Bundler } from "./bundler.ts";
import type { StateDirectory } from "./state-directory.ts";

/** Settings of `HandlerReloader`. */
export interface ReloaderOptions {
  readonly host: Pick<LocalHost, "tellMisfits"> & {
    readonly consumers: readonly Pick<RunningConsumer, "name" | "reload">[];
  };
  /** The bundles that the consumers run now. */
  readonly bundles: ReadonlyMap<string, Bundle>;
  readonly directory: Pick<StateDirectory, "state" | "update">;
  /** Has a consumer try its dead letters again; gives what became of them in words. */
  readonly redrive: (consumer: string) => Promise<string | undefined>;
  readonly display: Pick<Display, "log">;
  readonly signal: AbortSignal;
  /** Tells the verbs which files run. */
  readonly write: (entries: Readonly<Record<string, string>>) => Promise<void>;
}

/**
 * Runs the new code of a consumer whose files have changed, and has it try again what had failed for good. What cannot be
 * built or loaded is told, and the code before stays.
 */
export class HandlerReloader {
  readonly #options: ReloaderOptions;
  readonly #running: Map<string, Bundle>;
  /** The latest build of each consumer: one before it that waits its turn is passed over. */
  readonly #wanted = new Map<string, Bundle>();
  /** Each one step at a time, in the order in which they came: what hangs while it is tried again keeps no new code from running. */
  #reloads: Promise<void> = Promise.resolve();
  #redrives: Promise<void> = Promise.resolve();

  constructor(options: ReloaderOptions) {
    this.#options = options;
    this.#running = new Map(options.bundles);
  }

  /** Tries what failed under other code than this, and looks for changes from now on. */
  async start(bundler: Pick<Bundler, "watch" | "runs">): Promise<void> {
    const { display } = this.#options;
    for (const bundle of this.#running.values()) this.#redrive(bundle);
    await bundler.watch(
      (bundle) => {
        this.#wanted.set(bundle.consumer, bundle);
        this.#reloads = this.#after(this.#reloads, () => this.#reload(bundle, bundler));
      },
      (consumer, text) =>
        display.log(`${consumer}: cannot be built, the code before goes on running:\n${text}`),
    );
  }

  /** Waits for what is under way, once the signal has come: a handler that hangs is not waited for. */
  async stop(): Promise<void> {
    await this.#reloads;
    await this.#redrives;
  }

  #redrive(bundle: Bundle): void {
    this.#redrives = this.#after(this.#redrives, () => this.#took(bundle));
  }

  #after(before: Promise<void>, step: () => Promise<void>): Promise<void> {
    const { display, signal } = this.#options;
    return before
      .then(() => (signal.aborted ? undefined : step()))
      .catch((error: Error) => {
        if (!signal.aborted) display.log(`reload: ${error.message}`);
      });
  }

  async #reload(bundle: Bundle, bundler: Pick<Bundler, "runs">): Promise<void> {
    const { host, display, signal, write } = this.#options;
    if (this.#wanted.get(bundle.consumer) !== bundle) return;
    const consumer = host.consumers.find(({ name }) => name === bundle.consumer);
    try {
      if (consumer) await unlessAborted(consumer.reload(bundle.file), signal);
    } catch (error) {
      signal.throwIfAborted();
      display.log(`${bundle.consumer}: the code before goes on running: ${(error as Error).message}`);
      return;
    }
    this.#running.set(bundle.consumer, bundle);
    display.log(`${bundle.consumer}: reloaded`);
    this.#redrive(bundle);
    await write(Object.fromEntries([...this.#running].map(([name, { file }]) => [name, file])));
    await bundler.runs(bundle);
    await unlessAborted(host.tellMisfits(), signal);
  }

  /** The code runs: what failed for good under other code is tried again. */
  async #took(bundle: Bundle): Promise<void> {
    const { directory, redrive, display, signal } = this.#options;
    const { consumer: name, hash } = bundle;
    if (this.#running.get(name) !== bundle) return;
    const before = directory.state.code[name];
    if (before === hash) return;
    if (before !== undefined) {
      const outcome = await unlessAborted(redrive(name), signal);
      if (outcome !== undefined) display.log(`${name}: ${outcome}`);
    }
    if (!signal.aborted) await directory.update({ code: { ...directory.state.code, [name]: hash } });
  }
}
