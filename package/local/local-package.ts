import { copyFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { compile, compiled, PROJECT, prune, type Reached, reachedBy, renameImports } from "../compile.ts";
import { INTERNAL } from "../main-package.ts";
import { ENGINES, readManifest, versionsOf, writeManifest } from "../manifest.ts";

/** What tributary-cdc imports as `#local`. */
const ENTRY = "lib/local/parts.ts";
/** Found by their place, not imported. */
const BY_PLACE = ["dynamodb", "kinesis", "sqs"].map((service) => `lib/local/emulators/${service}.ts`);

/** Returns what the package `tributary-cdc-local` loads, modules of tributary-cdc among it. */
export async function reachedByLocal(): Promise<Reached> {
  return await reachedBy([ENTRY, ...BY_PLACE]);
}

/** Makes the package `tributary-cdc-local` in a directory that is empty; `main`: what tributary-cdc has itself. */
export async function makeLocal(directory: string, main: Reached): Promise<void> {
  const manifest = await readManifest();
  const { version, license, keywords, name, dependencies, optionalDependencies } = manifest;
  const reached = await reachedByLocal();
  await compile([ENTRY, ...BY_PLACE], directory);
  const own = new Set([...reached.files].filter((file) => !main.files.has(file)));
  await prune(directory, own, [ENTRY]);
  for (const file of main.files) await rm(join(directory, compiled(file, ".d.ts")), { force: true });
  await renameImports(directory, (source) =>
    main.files.has(source) ? `${name}/${INTERNAL}/${compiled(source.replace(/^lib\//, ""))}` : undefined,
  );
  await copyFile(join(PROJECT, "LICENSE"), join(directory, "LICENSE"));
  await copyFile(join(PROJECT, "package/local/README.md"), join(directory, "README.md"));
  const { packages } = await reachedBy([...own]);
  await writeManifest(directory, {
    ...{ name: `${name}-local`, version, license, keywords, type: "module", engines: ENGINES },
    description:
      "Embedded PostgreSQL, and emulators of Kinesis, DynamoDB and SQS, for tributary-cdc on your own machine",
    exports: {
      ".": { types: `./${compiled(ENTRY, ".d.ts")}`, default: `./${compiled(ENTRY)}` },
      "./package.json": "./package.json",
    },
    dependencies: versionsOf(packages, dependencies),
    optionalDependencies,
    peerDependencies: { [name]: version },
  });
}
