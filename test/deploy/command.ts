import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { type Cloud, cloudEnvironment } from "./cloud.ts";

const CLI = fileURLToPath(new URL("../../lib/cli/main.ts", import.meta.url));
const DEADLINE_MS = 60_000;

/** What a run of the command left. */
export interface CommandRun {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `tributary` as an operator would in a folder, with credentials of an emulated AWS and no other setting. */
export async function tributary(
  args: readonly string[],
  { directory, cloud }: { readonly directory: string; readonly cloud: Cloud },
): Promise<CommandRun> {
  const settings = /^(AWS_|TRIBUTARY_|PG|DATABASE_URL)/;
  const own = Object.entries(process.env).filter(([name]) => !settings.test(name));
  const env = { ...Object.fromEntries(own), ...cloudEnvironment(cloud) };
  return await new Promise((done) => {
    execFile(
      process.execPath,
      [CLI, ...args],
      { cwd: directory, env, timeout: DEADLINE_MS },
      (error, stdout, stderr) => {
        const code = error === null ? 0 : typeof error.code === "number" ? error.code : -1;
        done({ code, stdout, stderr });
      },
    );
  });
}
