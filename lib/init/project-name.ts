import { isBuiltin } from "node:module";
import { basename } from "node:path";
import { ConfigurationError } from "../change/tributary-error.ts";
import { PIPELINE_NAME, PIPELINE_NAME_RULE } from "../definition/pipeline-name.ts";
import { VERSIONS } from "./versions.ts";

/** Names that npm does not take for a package: https://github.com/npm/validate-npm-package-name */
const FORBIDDEN = ["node_modules", "favicon.ico"];

/**
 * Returns the name of the pipeline and of the new package: `given`, else that of the existing package, else one made of the folder's.
 * @throws ConfigurationError where npm or the pipeline could not have it.
 */
export function projectName(
  given: string | undefined,
  packageName: string | undefined,
  directory: string,
): string {
  const name = given ?? asName(packageName ?? basename(directory));
  const problem = problemOf(name);
  if (problem === undefined) return name;
  const remedy = given === undefined ? `choose one with --name: ${problem}` : problem;
  throw new ConfigurationError("The command line", [{ path: "--name", value: name, remedy }]);
}

function asName(text: string): string {
  return text
    .replace(/^@[^/]*\//, "")
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, "-")
    .replace(/^[^a-z]+/, "")
    .slice(0, 40)
    .replace(/-+$/, "");
}

function problemOf(name: string): string | undefined {
  if (!PIPELINE_NAME.test(name)) return PIPELINE_NAME_RULE;
  if (FORBIDDEN.includes(name) || isBuiltin(name)) return "npm takes no package of that name";
  if (Object.hasOwn(VERSIONS, name) || name === "tributary-cdc-local")
    return "npm installs no package into another one of its name";
  return undefined;
}
