import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { forwardLines } from "../../lib/local/lambda/log-lines.ts";
import { type Cloud, cloudEnvironment } from "./cloud.ts";
import type { ContainerDefinition } from "./deployed.ts";

/** Where the image keeps what stands in its build context, and where its program may write. */
const APP = "/app/";
const WRITABLE = "/run/tributary/";
const STOP_DEADLINE_MS = 20_000;
const KEPT_LINES = 200;

/** The capture program of the image, at work. */
export interface CaptureProgram {
  /** Rejects when it ends without having been asked to, with the end of its log. */
  readonly failed: Promise<never>;
  printed(): string;
  /** Runs the container's health check; gives its exit code. */
  checkHealth(): Promise<number | null>;
  /** As ECS does it: SIGTERM, and SIGKILL after a while; gives the exit code. Idempotent. */
  stop(): Promise<number | null>;
}

/** What `startCaptureProgram` needs. */
export interface CaptureProgramOptions {
  /** The image's build context. */
  readonly context: string;
  readonly container: ContainerDefinition;
  readonly cloud: Cloud;
  /** PEM: an authority that the machine trusts. */
  readonly trusted: string;
  /** Called with each line that it prints: `printed` has the last ones alone. */
  readonly onLine: (line: string) => void;
}

/**
 * Starts the command of the image's Dockerfile on the files of its build context, with the environment of Dockerfile and
 * task definition, as they are but for three things: paths of the container are those of the context, AWS is the
 * emulated cloud, and the machine trusts one authority more.
 */
export async function startCaptureProgram(options: CaptureProgramOptions): Promise<CaptureProgram> {
  const { context, container, cloud, trusted, onLine } = options;
  const here = (text: string) =>
    text.replaceAll(APP, `${context}/`).replaceAll(WRITABLE, `${context}/writable/`);
  await mkdir(join(context, "writable"), { recursive: true });
  const image = await readDockerfile(context);
  const given: Record<string, string> = { ...image.environment };
  for (const { name, value } of container.environment) given[name] = value;
  const start = ([program, ...args]: readonly string[]): ChildProcess => {
    if (program !== "node") throw new Error(`the image runs ${program}, not node`);
    return spawn(process.execPath, args.map(here), {
      cwd: context,
      env: {
        ...Object.fromEntries(Object.entries(given).map(([name, value]) => [name, here(value)])),
        ...cloudEnvironment(cloud),
        NODE_EXTRA_CA_CERTS: trusted,
      },
      // The channel ends with our process, and the program with the channel.
      stdio: ["ignore", "pipe", "pipe", "ipc"],
    });
  };
  const program = start(image.command);
  const lines: string[] = [];
  for (const stream of [program.stdout, program.stderr]) {
    forwardLines(stream as Readable, (line) => {
      onLine(line);
      lines.push(line);
      if (lines.length > KEPT_LINES) lines.shift();
    });
  }
  let stopping = false;
  const closed = once(program, "close") as Promise<[number | null]>;
  const failed = closed.then(([code]) => {
    if (stopping) return new Promise<never>(() => {});
    throw new Error(`the capture program ended with ${code}:\n${lines.join("\n")}`);
  });
  failed.catch(() => {});
  return {
    failed,
    printed: () => lines.join("\n"),
    async checkHealth() {
      // ["CMD", program, …]
      const check = start(container.healthCheck.command.slice(1));
      const [code] = (await once(check, "exit")) as [number | null];
      return code;
    },
    async stop() {
      stopping = true;
      program.kill("SIGTERM");
      const impatient = setTimeout(() => program.kill("SIGKILL"), STOP_DEADLINE_MS);
      const [code] = await closed;
      clearTimeout(impatient);
      return code;
    },
  };
}

/** What the Dockerfile says of running its image; the command in its exec form. */
async function readDockerfile(context: string) {
  const text = (await readFile(join(context, "Dockerfile"), "utf8")).replaceAll("\\\n", " ");
  const [program, ...args] = ["ENTRYPOINT", "CMD"].flatMap(
    (word) => JSON.parse(new RegExp(`^${word} (\\[.*\\])$`, "m").exec(text)?.[1] ?? "[]") as string[],
  );
  if (program === undefined) throw new Error(`the Dockerfile has no command:\n${text}`);
  const settings = [...text.matchAll(/^ENV (.*)$/gm)].flatMap(([, line = ""]) => line.trim().split(/\s+/));
  return {
    command: [program, ...args],
    environment: Object.fromEntries(
      settings.map((setting) => [setting.split("=")[0], setting.slice(setting.indexOf("=") + 1)]),
    ) as Record<string, string>,
  };
}
