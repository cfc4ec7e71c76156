import { basename, dirname, relative } from "node:path";
import { ConfigurationError } from "../../change/tributary-error.ts";
import type { Pipeline } from "../../definition/definition.ts";
import { readDefinition } from "../../definition/file.ts";
import { findDefinition, nearestPackage } from "../../definition/find-definition.ts";
import { checkHandlerFiles } from "../handler-files.ts";

/** A definition of the user's own, and where it stands. */
export interface Project {
  /** Entries are relative to it, and packages are looked for from there. */
  readonly directory: string;
  readonly definitionFile: string;
  /** As it is written: `tributary dev` gives it a slot of its own. */
  readonly definition: Pipeline;
}

/**
 * Finds the project that a run is for.
 * @throws ConfigurationError when there is no definition, no package.json, or a handler's file is missing.
 */
export async function findProject(pipeline: string | undefined): Promise<Project> {
  const { file: definitionFile, projectDirectory } = await findDefinition(pipeline);
  const definition = await readDefinition(definitionFile);
  if (nearestPackage(dirname(definitionFile)) === undefined) {
    const remedy = `no package.json in its folder or above: make one with npm init -y, and npm install tributary-cdc`;
    throw new ConfigurationError("The project", [
      { path: basename(definitionFile), value: definitionFile, remedy },
    ]);
  }
  process.chdir(projectDirectory);
  await checkHandlerFiles(definition, projectDirectory);
  return { directory: projectDirectory, definitionFile, definition };
}

/** The definition's file as the project names it. */
export function definitionName({ directory, definitionFile }: Project): string {
  return relative(directory, definitionFile);
}
