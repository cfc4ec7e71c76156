import { execFile } from "node:child_process";
import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join, normalize, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { build } from "esbuild";

/** The directory that paths of sources begin from. */
export const PROJECT = fileURLToPath(new URL("..", import.meta.url));

/** What some files load when they run. */
export interface Reached {
  /** Files of ours, from the project's directory: themselves, and those that they import. */
  readonly files: ReadonlySet<string>;
  /** Packages, by name. */
  readonly packages: readonly string[];
}

/** Finds what the entries import, directly or through files of ours; imports of types alone do not count. */
export async function reachedBy(entryPoints: readonly string[]): Promise<Reached> {
  const { metafile } = await build({
    absWorkingDir: PROJECT,
    entryPoints: [...entryPoints],
    outdir: "none",
    write: false,
    bundle: true,
    packages: "external",
    // Another package (`lib/local/local-parts.ts`), or one of two files (`BY_PLACE` in main-package.ts).
    external: ["#*"],
    platform: "node",
    format: "esm",
    metafile: true,
    logLevel: "error",
  });
  const imports = Object.values(metafile.inputs).flatMap((input) => input.imports);
  const names = imports
    .filter(({ external, path }) => external && !path.startsWith("node:") && !path.startsWith("#"))
    .map(({ path }) =>
      path
        .split("/")
        .slice(0, path.startsWith("@") ? 2 : 1)
        .join("/"),
    );
  return { files: new Set(Object.keys(metafile.inputs)), packages: [...new Set(names)].sort() };
}

/** Writes JavaScript and declarations of the entries, and of all that they import, to a directory. */
export async function compile(entries: readonly string[], directory: string): Promise<void> {
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
      // The second has the types of packages that come without.
      files: [...entries, "lib/local/emulators/packages.d.ts"].map((entry) => join(PROJECT, entry)),
      include: [],
    }),
  );
  const tsc = join(dirname(createRequire(import.meta.url).resolve("typescript/package.json")), "bin", "tsc");
  await promisify(execFile)(process.execPath, [tsc, "--project", project]);
  await rm(project);
}

/** What TypeScript makes of a file. */
export function compiled(file: string, ending: ".js" | ".d.ts" = ".js"): string {
  return file.replace(/\.ts$/, ending);
}

const SPECIFIER = /((?:\bfrom|\bimport)\s*\(?\s*)(["'])(\.{1,2}\/[^"']+)\2/g;

/** Removes the JavaScript of all but these sources, and the declarations that none of `declared` leads to. */
export async function prune(
  directory: string,
  files: ReadonlySet<string>,
  declared: readonly string[],
): Promise<void> {
  const declarations = new Set<string>();
  const visit = async (file: string) => {
    if (declarations.has(file)) return;
    declarations.add(file);
    const text = await readFile(join(directory, compiled(file, ".d.ts")), "utf8");
    for (const [, , , path] of text.matchAll(SPECIFIER)) await visit(sourceOf(file, path as string));
  };
  for (const file of declared) await visit(normalize(file));
  for (const path of await readdir(directory, { recursive: true })) {
    const [, source, ending] = /^(.*?)(\.d\.ts|\.js)$/.exec(path) ?? [];
    if (source === undefined) continue;
    const kept = ending === ".js" ? files.has(`${source}.ts`) : declarations.has(`${source}.ts`);
    if (!kept) await rm(join(directory, path));
  }
}

/** Rewrites the relative imports of a package's files: `rename` gets the imported source, and returns its new name or nothing. */
export async function renameImports(
  directory: string,
  rename: (source: string) => string | undefined,
): Promise<void> {
  for (const path of await readdir(directory, { recursive: true })) {
    if (!/\.(js|d\.ts)$/.test(path)) continue;
    const file = join(directory, path);
    const text = await readFile(file, "utf8");
    const renamed = text.replace(SPECIFIER, (whole, keyword, quote, specifier) => {
      const name = rename(sourceOf(path, specifier));
      return name === undefined ? whole : `${keyword}${quote}${name}${quote}`;
    });
    if (renamed !== text) await writeFile(file, renamed);
  }
}

/** The source, from the project's directory, that a compiled file's relative import stands for. */
function sourceOf(file: string, specifier: string): string {
  return relative(PROJECT, resolve(PROJECT, dirname(file), specifier)).replace(/\.js$/, ".ts");
}
