import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { appWith, packAll } from "./packed.ts";

const PROJECT = fileURLToPath(new URL("../..", import.meta.url));
const run = promisify(execFile);

/** What a shell looks through: without the folders that npm put in front for this test, so the Node is the machine's. */
const PATH = (process.env.PATH ?? "")
  .split(delimiter)
  .filter((folder) => !folder.includes("node_modules"))
  .join(delimiter);

/** The environment of a new user's shell. */
export function shellEnvironment(): NodeJS.ProcessEnv {
  return { ...process.env, PATH, NODE_OPTIONS: "", DATABASE_URL: "", npm_config_update_notifier: "false" };
}

/** A command in a folder, as its user's shell runs it. */
export async function inShell(folder: string, command: string, ...args: string[]) {
  const options = { cwd: folder, env: shellEnvironment(), timeout: 150_000, maxBuffer: 64 * 1024 * 1024 };
  return await run(command, args, options);
}

/** Someone who has the packed tarballs, in a folder of their own. What npm would fetch from a registry is this project's own. */
export class NewUser {
  readonly directory: string;
  /** `node_modules` with all that a project of init's asks for. */
  readonly modules: string;
  /** The program that `npm create tributary-cdc` runs. */
  readonly create: string;

  private constructor(directory: string, modules: string) {
    this.directory = directory;
    this.modules = modules;
    this.create = join(directory, "package", "create.mjs");
  }

  /** Packs, and unpacks as npm would install it. */
  static async begin(): Promise<NewUser> {
    const directory = await mkdtemp(join(tmpdir(), "tributary-new-user-"));
    const packed = await packAll(directory);
    const tarball = (name: string) => packed.get(name) ?? "";
    const app = await appWith([tarball("tributary-cdc"), tarball("tributary-cdc-local")]);
    const modules = join(app, "node_modules");
    for (const name of [
      "typescript",
      "@types/node",
      "@types/aws-lambda",
      "aws-cdk",
      "node",
      "undici-types",
    ]) {
      await mkdir(dirname(join(modules, name)), { recursive: true });
      // It may be there as a dependency.
      await symlink(join(PROJECT, "node_modules", name), join(modules, name)).catch(() => {});
    }
    await mkdir(join(modules, ".bin"), { recursive: true });
    for (const name of ["tsc", "cdk", "node", "esbuild"])
      await symlink(join(PROJECT, "node_modules", ".bin", name), join(modules, ".bin", name));
    for (const name of ["tributary", "tributary-cdc"])
      await symlink(join(modules, "tributary-cdc", "bin", "tributary.cjs"), join(modules, ".bin", name));
    await run("tar", ["-xzf", tarball("create-tributary-cdc"), "-C", directory]);
    return new NewUser(directory, modules);
  }

  /** A folder that has installed the tarballs and no more; npm would have written both files. */
  async installed(name: string): Promise<string> {
    const project = join(this.directory, name);
    await mkdir(project, { recursive: true });
    await symlink(this.modules, join(project, "node_modules"));
    const dependencies = {
      "tributary-cdc": "file:../tributary-cdc.tgz",
      "tributary-cdc-local": "file:../local.tgz",
    };
    await writeFile(join(project, "package.json"), JSON.stringify({ dependencies }));
    await writeFile(join(project, "package-lock.json"), "{}");
    return project;
  }

  /** Removes all of it. */
  async end(): Promise<void> {
    for (const made of [this.directory, dirname(this.modules)])
      await rm(made, { recursive: true, force: true });
  }
}
