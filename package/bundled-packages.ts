import { existsSync } from "node:fs";
import { copyFile, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { build } from "esbuild";
import { PROJECT } from "./compile.ts";
import { writeManifest } from "./manifest.ts";

/*
 * AWS's clients as npm has them are 33 MB in 4,000 files, most of it commands and declarations that nothing here uses. So they come
 * along in the tarball (npm's `bundleDependencies`), each as one module of what this package imports of it; what they share is in
 * one place. They keep their names: who bundles a handler with `@aws-sdk/*` external, since Lambda has it, goes on doing so. A
 * package manager that knows no bundled dependencies installs the real ones, whose versions the manifest names.
 */

/** Where they have what they share: a folder of one of them, since npm packs nothing else. */
const SHARED = "@smithy/node-http-handler/shared/[hash]";

/** Returns which of the packages that are needed are brought along. */
export function bundledOf(packages: readonly string[]): readonly string[] {
  return packages.filter((name) => /^@(aws-sdk|aws-lambda-powertools|smithy)\//.test(name));
}

/** Writes such packages below a package's `node_modules`, with what its files import of them. */
export async function bundlePackages(directory: string, bundled: readonly string[]): Promise<void> {
  const used = await importedNames(directory, ".js", bundled);
  const declared = await importedNames(directory, ".d.ts", bundled);
  const modules = join(directory, "node_modules");
  await build({
    absWorkingDir: PROJECT,
    entryPoints: bundled.map((name) => ({ in: `used:${name}`, out: `${name}/index` })),
    plugins: [
      {
        name: "used",
        setup({ onResolve, onLoad }) {
          onResolve({ filter: /^used:/ }, ({ path }) => ({ path: path.slice(5), namespace: "used" }));
          onLoad({ filter: /./, namespace: "used" }, ({ path }) => ({
            contents: `export { ${[...(used.get(path) ?? [])].join(", ")} } from "${path}";`,
            resolveDir: PROJECT,
          }));
        },
      },
    ],
    outdir: modules,
    chunkNames: SHARED,
    bundle: true,
    splitting: true,
    platform: "node",
    target: "node24",
    format: "esm",
    mainFields: ["module", "main"],
    minifyWhitespace: true,
    minifySyntax: true,
    keepNames: true,
    legalComments: "none",
    logLevel: "error",
  });
  await refuseRequires(modules);
  for (const name of bundled) {
    const origin = join(PROJECT, "node_modules", name);
    const { version, license } = JSON.parse(await readFile(join(origin, "package.json"), "utf8")) as {
      version: string;
      license: string;
    };
    const made = join(modules, name);
    await mkdir(made, { recursive: true });
    // Some name their licence in the manifest alone.
    if (existsSync(join(origin, "LICENSE"))) await copyFile(join(origin, "LICENSE"), join(made, "LICENSE"));
    await writeFile(join(made, "index.d.ts"), declarationsOf(declared.get(name) ?? new Set()));
    await writeManifest(made, {
      ...{ name, version, license, type: "module", sideEffects: false },
      description: `What tributary-cdc uses of ${name} ${version}, in one module`,
      exports: { ".": { types: "./index.d.ts", default: "./index.js" }, "./package.json": "./package.json" },
    });
  }
}

/** @throws where one asks for `require`, which a module has not: whoever bundles it again could not give it by a banner of theirs. */
async function refuseRequires(modules: string): Promise<void> {
  for (const path of await readdir(modules, { recursive: true })) {
    if (!path.endsWith(".js")) continue;
    if (/\b__require\d*\(/.test(await readFile(join(modules, path), "utf8")))
      throw new Error(`${path} asks for require: leave its package a dependency`);
  }
}

/** A client as its user may hand in one of their own; the rest is of no interest outside. */
function declarationsOf(names: ReadonlySet<string>): string {
  const lines = [...names].map((name) =>
    name.endsWith("Client")
      ? `export interface ${name} { send(command: any, options?: any): Promise<any>; destroy(): void; }`
      : `export type ${name} = any;`,
  );
  return `${lines.join("\n")}\nexport {};\n`;
}

/** What files of a package import of each of these packages, statically or when they need it. */
async function importedNames(
  directory: string,
  ending: ".js" | ".d.ts",
  bundled: readonly string[],
): Promise<ReadonlyMap<string, ReadonlySet<string>>> {
  const found = new Map<string, Set<string>>();
  const paths = (await readdir(directory, { recursive: true })).filter((path) => path.endsWith(ending));
  for (const path of paths) {
    const text = await readFile(join(directory, path), "utf8");
    const imports = [
      ...text.matchAll(/import (?:type )?\{([^}]*)\} from "([^"]+)"/g),
      ...text.matchAll(/const \{([^}]*)\} = await import\("([^"]+)"\)/g),
    ];
    for (const [, list = "", name = ""] of imports) {
      if (!bundled.includes(name)) continue;
      const names = found.get(name) ?? new Set();
      found.set(name, names);
      for (const one of list.split(",")) {
        const imported = one
          .trim()
          .replace(/^type /, "")
          .split(/ as |: /)[0];
        if (imported) names.add(imported);
      }
    }
  }
  return found;
}
