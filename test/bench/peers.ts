import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Packages that a bench compares with: name to exact version. */
export type PeerPackages = Readonly<Record<string, string>>;

/**
 * Installs packages into a folder of its own below the temporary directory, out of reach of this project's
 * dependencies, and gives the folder.
 */
export async function installPeers(name: string, packages: PeerPackages): Promise<string> {
  return installOnce(name, packages, async (folder) => {
    await writeFile(join(folder, "package.json"), JSON.stringify({ private: true, dependencies: packages }));
    const flags = ["--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--loglevel", "error"];
    await install("npm", ["install", ...flags], folder);
  });
}

/** Installs what is `wanted` into a folder of its own and gives it. A folder that an earlier run completed is used again. */
export async function installOnce(
  name: string,
  wanted: object,
  into: (folder: string) => Promise<void>,
): Promise<string> {
  const folder = join(tmpdir(), `tributary-bench-${name}`);
  const done = join(folder, "installed.json");
  if ((await readFile(done, "utf8").catch(() => "")) === JSON.stringify(wanted)) return folder;
  await mkdir(folder, { recursive: true });
  await into(folder);
  await writeFile(done, JSON.stringify(wanted));
  return folder;
}

/** Runs an installer or a compiler to its end. Throws with what it printed last where it fails. */
export async function install(command: string, args: readonly string[], cwd: string): Promise<void> {
  const child = spawn(command, args, { cwd, stdio: ["ignore", "pipe", "pipe"] });
  let printed = "";
  for (const output of [child.stdout, child.stderr]) {
    output.setEncoding("utf8").on("data", (text: string) => {
      printed = (printed + text).slice(-2000);
    });
  }
  const [code] = await once(child, "close");
  if (code !== 0) throw new Error(`${command} ${args.join(" ")} failed:\n${printed}`);
}
