import { chmod, copyFile, cp, mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { bundledOf, bundlePackages } from "./bundled-packages.ts";
import { compile, compiled, PROJECT, prune, type Reached, reachedBy } from "./compile.ts";
import { ENGINES, type Manifest, readManifest, versionsOf, writeManifest } from "./manifest.ts";

/** What `bin/` runs; what others import stands in package.json's exports. */
const COMMAND = "lib/cli/main.ts";
/** `init` alone: an older Node runs it too, so that the project it makes can bring its own. */
export const INIT = "lib/init/main.ts";
/** Read by it where they lie. */
export const TEMPLATES = "lib/init/templates";
/** The import that needs packages of its user's, and what says so where they are missing. */
const CDK = { path: "./cdk", loader: "cdk/index.ts" };
/** Copied as they are: they say to an older Node that it is one. */
const BIN = ["tributary.cjs", "run.cjs", "init.cjs"];
/** Found by their place, or by a name of `imports`. */
const BY_PLACE = [
  CDK.loader,
  "functions/capture/main.ts",
  "functions/capture/health.ts",
  "lib/cli/operate.ts",
  "functions/redrive.ts",
  "lib/local/lambda/child.ts",
  // What bin/ runs under an older Node.
  INIT,
  "lib/local/dev/pipeline.ts",
];
const FILES = ["functions/capture/Dockerfile", "LICENSE", "CHANGELOG.md"];
/** An app with constructs has these itself (two copies of them do not know each other's constructs); one without needs none. */
const PEERS = ["aws-cdk-lib", "constructs"];
/** Asked for if it is there. */
const IF_THERE = ["pg-native"];
/** Types that the declarations name. */
const TYPES = ["@standard-schema/spec", "@types/aws-lambda", "@types/pg"];
/**
 * How `tributary-cdc-local` imports modules of this package: with copies of its own it would throw errors that are no
 * `TributaryError` here. Its peer dependency is this very version, so these are no interface for anybody else.
 */
export const INTERNAL = "internal";

/** Returns what the package `tributary-cdc` loads. */
export async function reachedByMain(): Promise<Reached> {
  return await reachedBy(entriesOf(await readManifest()));
}

/** Makes the package `tributary-cdc` in a directory that is empty; `used`: what other packages load, modules of this one among it. */
export async function makeMain(directory: string, used: readonly string[]): Promise<void> {
  const manifest = await readManifest();
  const entries = entriesOf(manifest);
  const reached = await reachedBy(entries);
  await compile(entries, directory);
  const declared = [...Object.values(manifest.exports), ...used.filter((file) => reached.files.has(file))];
  await prune(directory, reached.files, declared);
  await bundlePackages(directory, bundledOf(reached.packages));
  for (const file of FILES) {
    await mkdir(dirname(join(directory, file)), { recursive: true });
    await copyFile(join(PROJECT, file), join(directory, file));
  }
  await cp(join(PROJECT, TEMPLATES), join(directory, TEMPLATES), { recursive: true });
  await copyFile(join(PROJECT, "package", "README.md"), join(directory, "README.md"));
  await mkdir(join(directory, "bin"));
  for (const file of BIN) await copyFile(join(PROJECT, "package", "bin", file), join(directory, "bin", file));
  await chmod(join(directory, "bin", "tributary.cjs"), 0o755);
  await writeManifest(directory, manifestOf(manifest, reached));
}

function entriesOf(manifest: Manifest): string[] {
  return [
    ...Object.values(manifest.exports),
    COMMAND,
    ...BY_PLACE,
    ...Object.values(choicesOf(manifest)).flatMap(Object.values),
  ];
}

/** Names of package.json's imports that stand for one of two files: in the bundle of a deployed consumer for another. */
function choicesOf({ imports }: Manifest): Readonly<Record<string, Readonly<Record<string, string>>>> {
  const choices = Object.entries(imports).filter(([, target]) => typeof target === "object");
  return Object.fromEntries(choices) as Record<string, Readonly<Record<string, string>>>;
}

function manifestOf(manifest: Manifest, { packages }: Reached) {
  const { name, version, description, license, keywords, exports, dependencies, peerDependencies } = manifest;
  const local = `${name}-local`;
  const needed = [...packages, ...TYPES].filter((one) => ![...PEERS, ...IF_THERE].includes(one)).sort();
  const peers = { ...versionsOf(PEERS, peerDependencies), [local]: version };
  return {
    ...{ name, version, description, license, keywords, type: "module", engines: ENGINES },
    imports: {
      "#local": local,
      ...Object.fromEntries(
        Object.entries(choicesOf(manifest)).map(([name, files]) => [
          name,
          Object.fromEntries(Object.entries(files).map(([condition, file]) => [condition, compiled(file)])),
        ]),
      ),
    },
    exports: {
      ...Object.fromEntries(
        Object.entries(exports).map(([path, entry]) => [
          path,
          {
            types: compiled(entry, ".d.ts"),
            default: path === CDK.path ? `./${compiled(CDK.loader)}` : compiled(entry),
          },
        ]),
      ),
      [`./${INTERNAL}/*`]: "./lib/*",
      "./package.json": "./package.json",
    },
    bin: { tributary: "bin/tributary.cjs", [name]: "bin/tributary.cjs" },
    dependencies: versionsOf(needed, dependencies),
    bundleDependencies: bundledOf(needed),
    peerDependencies: peers,
    peerDependenciesMeta: Object.fromEntries(Object.keys(peers).map((peer) => [peer, { optional: true }])),
  };
}
