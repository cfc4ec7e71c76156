import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Packages that a bench compares with: name to exact version. */
export type PeerPackages = Readonly<Record<string, string>>;

/**
 * Installs packages into a folder of its own below the temporary directory, out of reach of this project's
 * dependencies, and gives the folder. A folder that an earlier run completed is used again.
 */
export async function installPeers(name: string, packages: PeerPackages): Promise<string> {
  const folder = join(tmpdir(), `tributary-bench-${name}`);
  const done = join(folder, "installed.json");
  const wanted = JSON.stringify(packages);
  if ((await readFile(done, "utf8").catch(() => "")) === wanted) return folder;
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, "package.json"), JSON.stringify({ private: true, dependencies: packages }));
  const flags = ["--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--loglevel", "error"];
  const npm = spawn("npm", ["install", ...flags], { cwd: folder, stdio: ["ignore", "ignore", "pipe"] });
  let printed = "";
  npm.stderr.setEncoding("utf8").on("data", (text: string) => {
    printed = (printed + text).slice(-2000);
  });
  const [code] = await once(npm, "close");
  if (code !== 0) throw new Error(`npm install of ${Object.keys(packages).join(", ")} failed:\n${printed}`);
  await writeFile(done, wanted);
  return folder;
}
