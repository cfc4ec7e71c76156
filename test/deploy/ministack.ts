import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { access, mkdir, mkdtemp, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { type Cloud, NoCloudError } from "./cloud.ts";
import { startProcessGroup } from "./process-group.ts";
import { findPython } from "./python.ts";

const run = promisify(execFile);
const REQUIREMENTS = fileURLToPath(new URL("ministack.txt", import.meta.url));
const MODULES = fileURLToPath(new URL("../../node_modules", import.meta.url));
const INSTALL_DEADLINE_MS = 150_000;
const START_DEADLINE_MS = 60_000;
const TRIES = 3;

/**
 * Installs the pinned packages of ministack.txt into a virtual environment below node_modules/.cache, once; gives its
 * Python.
 * @throws NoCloudError
 */
export async function installMiniStack(): Promise<string> {
  const pins = createHash("sha256")
    .update(await readFile(REQUIREMENTS))
    .digest("hex")
    .slice(0, 12);
  const cache = join(MODULES, ".cache", "ministack");
  const installed = join(cache, pins);
  const python = (directory: string) => join(directory, "bin", "python");
  if (await exists(python(installed))) return python(installed);

  const base = await findPython();
  if (base === undefined) throw new NoCloudError("there is no Python 3.11 or newer with the module venv");
  await mkdir(cache, { recursive: true });
  // Made aside and moved: an interrupted installation is never taken for a whole one.
  const aside = await mkdtemp(join(cache, "new-"));
  try {
    const options = { timeout: INSTALL_DEADLINE_MS };
    await run(base, ["-m", "venv", aside], options);
    await run(python(aside), ["-m", "pip", "install", "--quiet", "-r", REQUIREMENTS], options);
    await rename(aside, installed).catch(async (error) => {
      if (!(await exists(python(installed)))) throw error;
    });
  } catch (error) {
    const { stderr, message } = error as Error & { stderr?: string };
    throw new NoCloudError(`its packages cannot be installed: ${stderr?.trim() || message}`);
  } finally {
    await rm(aside, { recursive: true, force: true });
  }
  return python(installed);
}

/**
 * Starts MiniStack (https://pypi.org/project/ministack), the parts of AWS that CDK deploys to, on a free port of 127.0.0.1.
 * @throws NoCloudError, Error with the end of its log when it does not start.
 */
export async function startMiniStack(): Promise<Cloud> {
  const python = await installMiniStack();
  for (let tries = 1; ; tries++) {
    const started = await start(python, await freePort());
    if (typeof started !== "string") return started;
    // Another process may have taken the port in between.
    if (tries === TRIES || !started.includes("already in use"))
      throw new Error(`MiniStack did not start:\n${started}`);
  }
}

async function start(python: string, port: number): Promise<Cloud | string> {
  const scratchDirectory = await mkdtemp(join(tmpdir(), "tributary-ministack-"));
  // Functions are run below it: whatever stands above says nothing of their modules' kind.
  await writeFile(join(scratchDirectory, "package.json"), "{}");
  const group = startProcessGroup([python, "-m", "ministack"], {
    scratchDirectory,
    workingDirectory: "/",
    environment: {
      // Its Lambda functions run on the `node` of the path: ours, not the machine's.
      PATH: [join(MODULES, ".bin"), process.env.PATH].join(delimiter),
      HOME: scratchDirectory,
      TMPDIR: scratchDirectory,
      BIND_HOST: "127.0.0.1",
      GATEWAY_PORT: String(port),
      LAMBDA_EXECUTOR: "local",
      NODE_PATH: await lambdaPackages(scratchDirectory),
      LOG_LEVEL: "INFO",
    },
  });
  let ended = false;
  void group.ended.then(() => {
    ended = true;
  });
  const endpoint = `http://127.0.0.1:${port}`;
  const deadline = Date.now() + START_DEADLINE_MS;
  while (!ended && Date.now() < deadline) {
    const answer = await fetch(`${endpoint}/_ministack/health`).catch(() => undefined);
    if (answer?.ok && !ended) return { endpoint, printed: group.printed, stop: group.stop };
    await delay(100);
  }
  await group.stop();
  return group.printed();
}

/**
 * Lambda has the AWS SDK for functions that do not bring it, such as the CDK's own for custom resources: that of this
 * project, and nothing else of it, so that a handler's bundle that lacks something is found.
 */
async function lambdaPackages(scratchDirectory: string): Promise<string> {
  const packages = join(scratchDirectory, "lambda-packages");
  await mkdir(packages);
  await symlink(join(MODULES, "@aws-sdk"), join(packages, "@aws-sdk"));
  return packages;
}

async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((listening, failed) => {
    probe.once("error", failed);
    probe.listen(0, "127.0.0.1", listening);
  });
  const { port } = probe.address() as { port: number };
  await new Promise((closed) => probe.close(closed));
  return port;
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
