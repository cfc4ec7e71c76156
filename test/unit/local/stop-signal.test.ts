import { spawn } from "node:child_process";
import { once } from "node:events";
import { resolve } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { expect, onTestFinished, test } from "vitest";

const FILE = JSON.stringify(pathToFileURL(resolve("lib/local/stop-signal.ts")).href);
/** Says its process id, and what ended it. The last timer ends what a failed test would leave. */
const SCRIPT = `
  import { abortOnSignals, abortWithNpm } from ${FILE};
  const stopping = new AbortController();
  abortOnSignals(stopping);
  abortWithNpm(stopping);
  console.log(process.pid);
  stopping.signal.addEventListener("abort", () => { console.log("stops"); process.exit(); });
  setTimeout(() => { console.log("stays"); process.exit(); }, 2_500);`;

/** Ends the shell that began the script, as npm does on SIGTERM, and returns what the script said then. */
async function saidAfterShell(environment: NodeJS.ProcessEnv): Promise<string> {
  // Behind a command there is another: the shell does not become the process.
  const shell = spawn("/bin/sh", ["-c", '"$NODE" --input-type=module -e "$SCRIPT"; true'], {
    env: { NODE: process.execPath, SCRIPT, NODE_NO_WARNINGS: "1", ...environment },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const lines = createInterface({ input: shell.stdout });
  const said: string[] = [];
  lines.on("line", (line) => said.push(line));
  onTestFinished(() => void shell.kill("SIGKILL"));
  await once(lines, "line");
  shell.kill("SIGTERM");
  await once(lines, "close");
  return said.slice(1).join();
}

test("a run in a script of npm ends with the shell of that script", async () => {
  expect(await saidAfterShell({ npm_lifecycle_event: "dev" })).toBe("stops");
});

test("a run outside of npm outlives its shell", async () => {
  expect(await saidAfterShell({})).toBe("stays");
});
