import { existsSync, statSync } from "node:fs";
import { dirname, extname, join, relative, resolve } from "node:path";
import { ConfigurationError } from "../change/tributary-error.ts";

/** The file of a pipeline definition, and the project it belongs to. */
export interface DefinitionPlace {
  /** Absolute. */
  readonly file: string;
  /** Entries of consumers are relative to it. */
  readonly projectDirectory: string;
}

/** Names of the definition's file, in the order they are looked for. */
export const CONFIG_FILES = ["ts", "mts", "js", "mjs"].map((ending) => `tributary.config.${ending}`);

/**
 * Finds the pipeline definition: `given` (`--pipeline`), else TRIBUTARY_PIPELINE, else tributary.config.ts in the working directory or above
 * it, up to the nearest package.json, else cdk/pipeline.ts there.
 * @throws ConfigurationError that lists where it was looked for.
 */
export async function findDefinition(
  given: string | undefined = process.env.TRIBUTARY_PIPELINE || undefined,
  cwd: string = process.cwd(),
): Promise<DefinitionPlace> {
  if (given !== undefined) {
    const file = resolve(cwd, given);
    return { file, projectDirectory: projectDirectory(file) };
  }
  const root = nearestPackage(cwd) ?? resolve(cwd);
  const folders = upwards(resolve(cwd)).filter((folder) => !relative(root, folder).startsWith(".."));
  const cdkFile = join(root, "cdk", "pipeline.ts");
  const configFiles = folders.flatMap((folder) => CONFIG_FILES.map((name) => join(folder, name)));
  const file = [...configFiles, cdkFile].find(isFile);
  // Without a package.json the folder that was searched is the project, for cdk/pipeline.ts as well.
  if (file !== undefined) return { file, projectDirectory: nearestPackage(dirname(file)) ?? root };
  const [name, ...others] = CONFIG_FILES as [string, ...string[]];
  const endings = others.map((other) => extname(other)).join(", ");
  throw new ConfigurationError("The command line", [
    {
      path: "--pipeline or TRIBUTARY_PIPELINE",
      value: undefined,
      remedy: `no pipeline definition found: looked for ${name} (${endings}) in ${folders.join(", ")}, and for ${cdkFile}. Name the file with --pipeline, or make a project with npx tributary-cdc init`,
    },
  ]);
}

/** Returns the project of a file: the nearest folder with a package.json at or above it; without one, the file's own folder. */
export function projectDirectory(file: string): string {
  const folder = dirname(resolve(file));
  return nearestPackage(folder) ?? folder;
}

/** Returns the nearest folder with a package.json, from `folder` upwards. */
export function nearestPackage(folder: string): string | undefined {
  return upwards(resolve(folder)).find((above) => existsSync(join(above, "package.json")));
}

function upwards(folder: string): string[] {
  const above = dirname(folder);
  return above === folder ? [folder] : [folder, ...upwards(above)];
}

function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() ?? false;
}
