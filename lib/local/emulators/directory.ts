import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { isAlive, ownIdentity, processIdentity } from "../process-identity.ts";

/** Names the directory in which an emulator keeps its state; without it, in memory. */
export const DIRECTORY_VARIABLE = "TRIBUTARY_EMULATOR_DIRECTORY";

const OWNER_FILE = "owner";
const LOOK_MS = 10;

/**
 * The directory of this emulator, made, and ours alone: an emulator that a host left behind which was killed is ended first.
 * Undefined where the state is in memory.
 */
export async function emulatorDirectory(): Promise<string | undefined> {
  const directory = process.env[DIRECTORY_VARIABLE];
  if (!directory) return undefined;
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const file = join(directory, OWNER_FILE);
  const before = processIdentity.safeParse(parse(readIfThere(file))).data;
  while (before && before.pid !== process.pid && isAlive(before)) {
    // Whoever started us has the project's lock: its host is gone.
    process.kill(before.pid, "SIGKILL");
    await delay(LOOK_MS);
  }
  writeFileSync(file, JSON.stringify(ownIdentity()), { mode: 0o600 });
  return directory;
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
