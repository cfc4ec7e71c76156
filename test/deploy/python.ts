import { execFile } from "node:child_process";
import { promisify } from "node:util";

const run = promisify(execFile);
const CANDIDATES = ["python3", "python3.14", "python3.13", "python3.12", "python3.11"];
const CHECK = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))";

/** A Python of 3.11 or newer that can make virtual environments; undefined where the machine has none. */
export async function findPython(): Promise<string | undefined> {
  for (const candidate of CANDIDATES) {
    const found = await run(candidate, ["-c", CHECK]).catch(() => undefined);
    if (found) return candidate;
  }
  return undefined;
}
