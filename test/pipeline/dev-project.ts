import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { eventually } from "../eventually.ts";
import type { Finished } from "./npm-start.ts";

const REPOSITORY = fileURLToPath(new URL("../..", import.meta.url));
const COMMAND = join(REPOSITORY, "lib/cli/main.ts");

/** A run of a verb under way. */
export interface RunningVerb {
  readonly finished: Promise<Finished>;
  readonly pid: number;
  /** What it has printed so far on both streams. */
  printed(): string;
  kill(signal: NodeJS.Signals): void;
}

/** A project of a user's own in a temporary folder, with the package in its node_modules. */
export class DevProject {
  readonly directory: string;
  readonly #runs: RunningVerb[] = [];

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async make(files: Readonly<Record<string, string>> = {}): Promise<DevProject> {
    const project = new DevProject(await mkdtemp(join(tmpdir(), "tributary-dev-")));
    await mkdir(project.path("node_modules"));
    await symlink(REPOSITORY, project.path("node_modules/tributary-cdc"));
    await project.write({ "package.json": '{ "private": true, "type": "module" }', ...files });
    return project;
  }

  path(name: string): string {
    return join(this.directory, name);
  }

  async write(files: Readonly<Record<string, string>>): Promise<void> {
    for (const [name, content] of Object.entries(files)) {
      await mkdir(dirname(this.path(name)), { recursive: true });
      await writeFile(this.path(name), content);
    }
  }

  async read(name: string): Promise<string> {
    return existsSync(this.path(name)) ? await readFile(this.path(name), "utf8") : "";
  }

  /** Runs `tributary <verb>` in the project's folder, or in one below it. */
  run(
    args: readonly string[],
    environment: Readonly<Record<string, string>> = {},
    folder = ".",
  ): RunningVerb {
    const child = spawn(process.execPath, [COMMAND, ...args], {
      cwd: this.path(folder),
      detached: true,
      env: { PATH: process.env.PATH, HOME: process.env.HOME, ...environment },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let printed = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (chunk: string) => {
        printed += chunk;
      });
    }
    const finished = Promise.all([once(child, "close"), text(child.stdout), text(child.stderr)]).then(
      ([[code], stdout, stderr]): Finished => ({ code: code as number | null, stdout, stderr }),
    );
    const pid = child.pid as number;
    const run = {
      finished,
      pid,
      printed: () => printed,
      kill: (signal: NodeJS.Signals) => void process.kill(pid, signal),
    };
    this.#runs.push(run);
    return run;
  }

  /** Runs `tributary dev` until it says that it runs. */
  async dev(...args: readonly string[]): Promise<RunningVerb> {
    const run = this.run(["dev", ...args]);
    let over = false;
    void run.finished.then(() => {
      over = true;
    });
    await eventually(() => over || /^running; /m.test(run.printed()), {
      what: () => `a start: ${run.printed()}`,
    });
    if (over) throw new Error(run.printed());
    return run;
  }

  /** Ends what still runs. */
  async end(): Promise<void> {
    for (const run of this.#runs) {
      try {
        run.kill("SIGKILL");
      } catch {
        // It has ended.
      }
      await run.finished;
    }
  }

  /** Ends what still runs, and removes the folder. */
  async remove(): Promise<void> {
    await this.end();
    await rm(this.directory, { recursive: true, force: true });
  }
}

/** Ends a run as Ctrl-C does. */
export async function interrupt(run: RunningVerb): Promise<Finished> {
  run.kill("SIGINT");
  return await run.finished;
}

/** Waits for words in what a run prints. */
export async function says(run: RunningVerb, words: RegExp | string, deadlineMs = 30_000): Promise<void> {
  const is =
    typeof words === "string" ? (text: string) => text.includes(words) : (text: string) => words.test(text);
  await eventually(() => is(run.printed()), { what: () => `${words} in: ${run.printed()}`, deadlineMs });
}
