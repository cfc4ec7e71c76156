import { mkdir, rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { PROJECT } from "./compile.ts";
import { makeCreate } from "./create/create-package.ts";
import { makeLocal, reachedByLocal } from "./local/local-package.ts";
import { makeMain, reachedByMain } from "./main-package.ts";

/*
 * `npm run package [-- <directory>]`: the packages that others install, each in a folder of its name, as JavaScript with
 * declarations: Node strips no types below node_modules. `npm pack ./dist/tributary-cdc` makes a file of one.
 */

/** What makes each package, in a directory that is empty. */
const PACKAGES: Readonly<Record<string, (directory: string) => Promise<void>>> = {
  "tributary-cdc": async (directory) => makeMain(directory, [...(await reachedByLocal()).files]),
  "tributary-cdc-local": async (directory) => makeLocal(directory, await reachedByMain()),
  "create-tributary-cdc": makeCreate,
};

/** Makes all packages, each in a folder of its name, which is emptied before. Returns the folders. */
export async function buildPackages(directory: string): Promise<string[]> {
  return await Promise.all(
    Object.entries(PACKAGES).map(async ([name, make]) => {
      const folder = join(directory, name);
      await rm(folder, { recursive: true, force: true });
      await mkdir(folder, { recursive: true });
      await make(folder);
      return folder;
    }),
  );
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await buildPackages(resolve(process.argv[2] ?? join(PROJECT, "dist")));
}
