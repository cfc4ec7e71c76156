import { chmod, copyFile, cp } from "node:fs/promises";
import { join } from "node:path";
import { build } from "esbuild";
import { PROJECT } from "../compile.ts";
import { INIT, TEMPLATES } from "../main-package.ts";
import { readManifest, writeManifest } from "../manifest.ts";

/** What `init` needs of the Node that starts it. */
const ENGINES = { node: ">=20" };
const PROGRAM = "create.mjs";

/**
 * Makes the package `create-tributary-cdc`, which `npm create tributary-cdc` runs, in a directory that is empty: `init` as one file,
 * with nothing to install beside it.
 */
export async function makeCreate(directory: string): Promise<void> {
  const { name, version, license, keywords } = await readManifest();
  const program = join(directory, PROGRAM);
  await build({
    absWorkingDir: PROJECT,
    entryPoints: [INIT],
    outfile: program,
    bundle: true,
    platform: "node",
    target: "node20",
    format: "esm",
    // CommonJS packages inside of an ES module ask for what Node gives to CommonJS only.
    banner: {
      js: '#!/usr/bin/env node\nimport{createRequire}from"node:module";const require=createRequire(import.meta.url);',
    },
    // pg asks for it if it is there.
    external: ["pg-native"],
    minifySyntax: true,
    minifyWhitespace: true,
    keepNames: true,
    logLevel: "error",
  });
  await chmod(program, 0o755);
  await cp(join(PROJECT, TEMPLATES), join(directory, "templates"), { recursive: true });
  await copyFile(join(PROJECT, "LICENSE"), join(directory, "LICENSE"));
  await copyFile(join(PROJECT, "package/create/README.md"), join(directory, "README.md"));
  await writeManifest(directory, {
    ...{ name: `create-${name}`, version, license, keywords, type: "module", engines: ENGINES },
    description: `npm create ${name}: a project for change data capture that works at once`,
    bin: { [`create-${name}`]: PROGRAM },
  });
}
