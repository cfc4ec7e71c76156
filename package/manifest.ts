import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { PROJECT } from "./compile.ts";

/** Versions of packages, by name. */
export type Versions = Readonly<Record<string, string>>;

/** What of this project's package.json the packages that are made of it need. */
export interface Manifest {
  readonly name: string;
  readonly version: string;
  readonly description: string;
  readonly license: string;
  readonly keywords: readonly string[];
  /** Files of TypeScript, from the project's directory. */
  readonly exports: Readonly<Record<string, string>>;
  /** The same, or one of two by a condition. */
  readonly imports: Readonly<Record<string, string | Readonly<Record<string, string>>>>;
  readonly dependencies: Versions;
  readonly optionalDependencies: Versions;
  readonly peerDependencies: Versions;
}

/** What the packages are tested with; so are Lambda's and the image's Node. */
export const ENGINES = { node: ">=24" };

/** Reads this project's package.json. */
export async function readManifest(): Promise<Manifest> {
  return JSON.parse(await readFile(join(PROJECT, "package.json"), "utf8")) as Manifest;
}

/** Writes the package.json of a package that was made. */
export async function writeManifest(directory: string, manifest: object): Promise<void> {
  await writeFile(join(directory, "package.json"), `${JSON.stringify(manifest, undefined, 2)}\n`);
}

/** The versions of packages that are needed. @throws where one is missing among them. */
export function versionsOf(needed: readonly string[], from: Versions): Versions {
  return Object.fromEntries(
    needed.map((name) => {
      const version = from[name];
      if (!version)
        throw new Error(`${name} is imported by what others install: name it in package.json's dependencies`);
      return [name, version];
    }),
  );
}
