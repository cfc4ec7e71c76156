import { execFile } from "node:child_process";
import { chmod, copyFile, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { build } from "esbuild";

/*
 * `npm run package [-- <directory>]`: the package that others install, as JavaScript with its declarations: Node strips no types
 * below node_modules. `npm pack ./dist` makes a file of it.
 */

const PROJECT = fileURLToPath(new URL("..", import.meta.url));

/** What is run; what others import stands in package.json's exports. */
const COMMAND = "lib/cli/main.ts";
/** Found by their place, not imported. */
const BY_PLACE = [
  "functions/capture/main.ts",
  "functions/capture/health.ts",
  "functions/redrive.ts",
  "lib/local/lambda/child.ts",
];
const FILES = ["functions/capture/Dockerfile"];
/** An app has these itself: two copies of them do not know each other's constructs. */
const PEERS = ["aws-cdk-lib", "constructs"];
/** Asked for if it is there. */
const OPTIONAL = ["pg-native"];
/** What it is tested with; so are Lambda's and the image's Node. */
const NODE = ">=24";
/** Types that the declarations name. */
const TYPES = ["@standard-schema/spec", "@types/aws-lambda", "@types/pg"];

interface Manifest {
  readonly name: string;
  readonly version: string;
  readonly description: string;
  /** Files of TypeScript, from the project's directory. */
  readonly exports: Readonly<Record<string, string>>;
  readonly dependencies: Readonly<Record<string, string>>;
  readonly peerDependencies: Readonly<Record<string, string>>;
}

/** Makes the package in a directory, which is emptied before. */
export async function buildPackage(directory: string): Promise<void> {
  const manifest = JSON.parse(await readFile(join(PROJECT, "package.json"), "utf8")) as Manifest;
  const entries = [...Object.values(manifest.exports), COMMAND, ...BY_PLACE];
  const needed = await neededPackages(entries);
  await rm(directory, { recursive: true, force: true });
  await mkdir(directory, { recursive: true });
  await compile(entries, directory);
  for (const file of FILES) {
    await mkdir(dirname(join(directory, file)), { recursive: true });
    await copyFile(join(PROJECT, file), join(directory, file));
  }
  const command = join(directory, compiled(COMMAND));
  await writeFile(command, `#!/usr/bin/env node\n${await readFile(command, "utf8")}`);
  await chmod(command, 0o755);
  await writeFile(
    join(directory, "package.json"),
    `${JSON.stringify(packageManifest(manifest, needed), undefined, 2)}\n`,
  );
}

/** Packages that the entries import, directly or through files of ours. */
async function neededPackages(entryPoints: string[]): Promise<string[]> {
  const { metafile } = await build({
    absWorkingDir: PROJECT,
    entryPoints,
    outdir: "none",
    write: false,
    bundle: true,
    packages: "external",
    platform: "node",
    format: "esm",
    metafile: true,
    logLevel: "error",
  });
  const imports = Object.values(metafile.inputs).flatMap((input) => input.imports);
  const names = imports
    .filter(({ external, path }) => external && !path.startsWith("node:"))
    .map(({ path }) =>
      path
        .split("/")
        .slice(0, path.startsWith("@") ? 2 : 1)
        .join("/"),
    );
  return [...new Set([...names, ...TYPES])].filter((name) => !OPTIONAL.includes(name)).sort();
}

/** JavaScript and declarations of what the entries reach. */
async function compile(entries: readonly string[], directory: string): Promise<void> {
  const project = join(directory, "tsconfig.json");
  await writeFile(
    project,
    JSON.stringify({
      extends: join(PROJECT, "tsconfig.json"),
      compilerOptions: {
        noEmit: false,
        declaration: true,
        rewriteRelativeImportExtensions: true,
        rootDir: PROJECT,
        outDir: directory,
        typeRoots: [join(PROJECT, "node_modules", "@types")],
      },
      files: entries.map((entry) => join(PROJECT, entry)),
      include: [],
    }),
  );
  const tsc = join(dirname(createRequire(import.meta.url).resolve("typescript/package.json")), "bin", "tsc");
  await promisify(execFile)(process.execPath, [tsc, "--project", project]);
  await rm(project);
}

function packageManifest(manifest: Manifest, needed: readonly string[]) {
  const { name, version, description, exports, dependencies, peerDependencies } = manifest;
  const versionOf = (needs: string, from: Readonly<Record<string, string>>) => {
    const found = from[needs];
    if (!found)
      throw new Error(`${needs} is imported by what others install: name it in package.json's dependencies`);
    return [needs, found] as const;
  };
  return {
    ...{ name, version, description, type: "module", engines: { node: NODE } },
    exports: Object.fromEntries(
      Object.entries(exports).map(([path, entry]) => [
        path,
        { types: compiled(entry, ".d.ts"), default: compiled(entry) },
      ]),
    ),
    bin: { [name]: compiled(COMMAND) },
    dependencies: Object.fromEntries(
      needed.filter((one) => !PEERS.includes(one)).map((one) => versionOf(one, dependencies)),
    ),
    peerDependencies: Object.fromEntries(PEERS.map((one) => versionOf(one, peerDependencies))),
  };
}

function compiled(entry: string, ending = ".js"): string {
  return entry.replace(/\.ts$/, ending);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await buildPackage(resolve(process.argv[2] ?? join(PROJECT, "dist")));
}
