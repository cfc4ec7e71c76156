import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readFile, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { buildPackages } from "../../package/build.ts";

const PROJECT = fileURLToPath(new URL("../..", import.meta.url));
const run = promisify(execFile);

/** What the tests read of a package's manifest. */
export interface PackedManifest {
  readonly version: string;
  readonly license: string;
  readonly exports: Record<string, unknown>;
  readonly bin: Record<string, string>;
  readonly dependencies: Record<string, string>;
  readonly bundleDependencies?: readonly string[];
  readonly optionalDependencies?: Record<string, string>;
  readonly peerDependencies: Record<string, string>;
  readonly peerDependenciesMeta: Record<string, { optional: boolean }>;
}

/** Makes the packages and packs them; returns the tarballs by the packages' names. */
export async function packAll(directory: string): Promise<ReadonlyMap<string, string>> {
  const packed = new Map<string, string>();
  for (const folder of await buildPackages(join(directory, "built"))) {
    const { stdout } = await run("npm", ["pack", folder, "--pack-destination", directory, "--silent"]);
    packed.set(basename(folder), join(directory, stdout.trim().split("\n").at(-1) ?? ""));
  }
  return packed;
}

/**
 * Installs packed packages into a new folder as npm does, without a registry: their dependencies are this project's own.
 * @param without names that are not installed
 */
export async function appWith(tarballs: readonly string[], without: readonly string[] = []): Promise<string> {
  const app = await mkdtemp(join(tmpdir(), "tributary-app-"));
  const modules = join(app, "node_modules");
  await mkdir(modules);
  await writeFile(join(app, "package.json"), JSON.stringify({ name: "someones-app", type: "module" }));
  for (const tarball of tarballs) {
    const unpacked = join(app, "unpacked");
    await mkdir(unpacked);
    await run("tar", ["-xzf", tarball, "-C", unpacked]);
    const { name } = JSON.parse(await readFile(join(unpacked, "package", "package.json"), "utf8")) as {
      name: string;
    };
    await cp(join(unpacked, "package"), join(modules, name), { recursive: true });
    await run("rm", ["-r", unpacked]);
  }
  for (const tarball of tarballs) {
    const { dependencies, bundleDependencies, optionalDependencies, peerDependencies } = await manifestIn(
      app,
      nameOf(tarball),
    );
    for (const name of Object.keys({ ...dependencies, ...optionalDependencies, ...peerDependencies })) {
      if ([...without, ...(bundleDependencies ?? [])].includes(name) || name.startsWith("tributary-cdc"))
        continue;
      await mkdir(dirname(join(modules, name)), { recursive: true });
      await symlink(join(PROJECT, "node_modules", name), join(modules, name)).catch(
        (error: NodeJS.ErrnoException) => {
          if (error.code !== "EEXIST") throw error;
        },
      );
    }
  }
  return app;
}

/** The manifest of a package that was installed into an app. */
export async function manifestIn(app: string, name = "tributary-cdc"): Promise<PackedManifest> {
  return JSON.parse(
    await readFile(join(app, "node_modules", name, "package.json"), "utf8"),
  ) as PackedManifest;
}

function nameOf(tarball: string): string {
  return basename(tarball).replace(/-\d+\.\d+\.\d+.*$/, "");
}
