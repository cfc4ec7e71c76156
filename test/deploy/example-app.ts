import { cp, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const PROJECT = fileURLToPath(new URL("../..", import.meta.url));
/** What `cdk deploy` reads. */
const PARTS = ["cdk", "functions", "lib", "cdk.json", "package.json", "package-lock.json", "tsconfig.json"];

/** A copy of the example app that a test may change, as its user would. */
export interface ExampleApp {
  readonly directory: string;
  /**
   * Replaces a text in a file.
   * @throws Error when it is not there exactly once.
   */
  edit(file: string, from: string, to: string): Promise<void>;
  remove(): Promise<void>;
}

/** Copies the project aside; packages are those of this checkout. */
export async function copyExampleApp(): Promise<ExampleApp> {
  const directory = await mkdtemp(join(tmpdir(), "tributary-example-"));
  await Promise.all(PARTS.map((part) => cp(join(PROJECT, part), join(directory, part), { recursive: true })));
  await symlink(join(PROJECT, "node_modules"), join(directory, "node_modules"));
  return {
    directory,
    async edit(file, from, to) {
      const path = join(directory, file);
      const parts = (await readFile(path, "utf8")).split(from);
      if (parts.length !== 2) throw new Error(`${file}: ${parts.length - 1} times: ${from}`);
      await writeFile(path, parts.join(to));
    },
    remove: () => rm(directory, { recursive: true, force: true }),
  };
}
