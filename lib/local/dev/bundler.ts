import { createHash } from "node:crypto";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join, relative, resolve } from "node:path";
import { type BuildContext, type BuildFailure, type BuildResult, context, type Message } from "esbuild";
import { REQUIRE_BANNER } from "../../../cdk/constructs/capture-program.ts";
import type { ConsumerDefinition } from "../../definition/definition.ts";
import { DevBuildError } from "./dev-errors.ts";
import { explainUnwritable } from "./state-directory.ts";

/** The folders of handlers and of their bundles. */
export interface BundlerOptions {
  /** Entries are relative to it, and packages are looked for from there. */
  readonly project: string;
  /** Emptied at the start. */
  readonly output: string;
}

/** A consumer's code, as one file with its source map beside it. */
export interface Bundle {
  readonly consumer: string;
  readonly file: string;
  /** Changes with the code alone. */
  readonly hash: string;
}

/** Builds that are kept up to the one that runs: those before it may still be read. */
const KEPT = 3;

/**
 * Bundles the handlers of a definition as the CDK app does, with source maps, and again when a file of a bundle changes. Each
 * build has a directory of its own, so that nobody reads one that is half written.
 */
export class Bundler {
  readonly #options: BundlerOptions;
  readonly #contexts: BuildContext[] = [];
  readonly #latest = new Map<string, Bundle>();
  #onBundle: ((bundle: Bundle) => void) | undefined;
  #onProblem: ((consumer: string, text: string) => void) | undefined;
  readonly #builds = new Map<string, number>();
  /** The number of the first build that is still there. */
  readonly #oldest = new Map<string, number>();
  #unwritable: unknown;

  private constructor(options: BundlerOptions) {
    this.#options = options;
  }

  /** Bundles all consumers. @throws DevBuildError with file and line of everything that is wrong. */
  static async start(
    consumers: readonly ConsumerDefinition[],
    options: BundlerOptions,
  ): Promise<{ readonly bundler: Bundler; readonly bundles: ReadonlyMap<string, Bundle> }> {
    await rm(options.output, { recursive: true, force: true });
    const bundler = new Bundler(options);
    try {
      const problems: string[] = [];
      for (const consumer of consumers) {
        const built = await bundler.#context(consumer);
        bundler.#contexts.push(built);
        await built.rebuild().catch((error: BuildFailure) => {
          if (!Array.isArray(error.errors)) throw error;
          problems.push(inWords(error.errors, options.project));
        });
      }
      if (bundler.#unwritable !== undefined) throw explainUnwritable(options.output, bundler.#unwritable);
      if (problems.length > 0) throw new DevBuildError([...new Set(problems)].join("\n"));
      return { bundler, bundles: new Map(bundler.#latest) };
    } catch (error) {
      await bundler.stop();
      throw error;
    }
  }

  /** Builds again whenever a file changes: a new bundle, or what is wrong with the files. */
  async watch(
    onBundle: (bundle: Bundle) => void,
    onProblem: (consumer: string, text: string) => void,
  ): Promise<void> {
    this.#onBundle = onBundle;
    this.#onProblem = onProblem;
    await Promise.all(this.#contexts.map((built) => built.watch()));
  }

  /** Says which bundle runs from now on: those long before it go, and whatever is newer stays. */
  async runs({ consumer, file }: Bundle): Promise<void> {
    const builds = dirname(dirname(file));
    const last = Number(basename(dirname(file))) - KEPT;
    for (let number = this.#oldest.get(consumer) ?? 1; number <= last; number++)
      await rm(join(builds, String(number)), { recursive: true, force: true });
    this.#oldest.set(consumer, Math.max(1, last + 1));
  }

  async stop(): Promise<void> {
    this.#onBundle = undefined;
    this.#onProblem = undefined;
    await Promise.all(this.#contexts.map((built) => built.dispose()));
  }

  #context({ name, entry }: ConsumerDefinition): Promise<BuildContext> {
    const { project, output } = this.#options;
    return context({
      absWorkingDir: project,
      entryPoints: [resolve(project, entry)],
      // The map names its sources from here; builds are all equally deep.
      outfile: join(output, name, "0", `${basename(entry).replace(/\.[cm]?[jt]sx?$/, "")}.mjs`),
      write: false,
      bundle: true,
      platform: "node",
      target: "node24",
      format: "esm",
      sourcemap: "linked",
      keepNames: true,
      mainFields: ["module", "main"],
      banner: { js: REQUIRE_BANNER },
      external: ["pg-native"],
      logLevel: "silent",
      plugins: [{ name: "tributary", setup: (build) => build.onEnd((result) => this.#ended(name, result)) }],
    });
  }

  /** An error thrown here would be told as one of the handler's. */
  async #ended(consumer: string, result: BuildResult): Promise<void> {
    try {
      await this.#take(consumer, result);
    } catch (error) {
      this.#unwritable = error;
      this.#onProblem?.(consumer, `  ${(error as Error).message}`);
    }
  }

  async #take(consumer: string, { errors, outputFiles = [] }: BuildResult): Promise<void> {
    if (errors.length > 0) {
      this.#onProblem?.(consumer, inWords(errors, this.#options.project));
      return;
    }
    const hash = createHash("sha256");
    for (const { path, contents } of outputFiles) if (!path.endsWith(".map")) hash.update(contents);
    const digest = hash.digest("hex");
    // The first look of the watcher, or a file that was saved as it was.
    if (this.#latest.get(consumer)?.hash === digest) return;
    const number = (this.#builds.get(consumer) ?? 0) + 1;
    this.#builds.set(consumer, number);
    const directory = join(this.#options.output, consumer, String(number));
    await mkdir(directory, { recursive: true });
    let file = "";
    for (const { path, contents } of outputFiles) {
      const target = join(directory, basename(path));
      await writeFile(target, contents);
      if (!path.endsWith(".map")) file = target;
    }
    const bundle = { consumer, file, hash: digest };
    this.#latest.set(consumer, bundle);
    this.#onBundle?.(bundle);
  }
}

/** `functions/orders.ts:3:7: Could not resolve "foo"`, a line for each. */
function inWords(errors: readonly Message[], project: string): string {
  return errors
    .map(({ location, text }) => {
      if (!location) return `  ${text}`;
      const file = relative(project, resolve(project, location.file));
      return `  ${file}:${location.line}:${location.column + 1}: ${text}`;
    })
    .join("\n");
}
