import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { ConfigurationError, TributaryError } from "../change/tributary-error.ts";
import type { Pipeline } from "./definition.ts";
import { definePipeline, type PipelineInput } from "./pipeline.ts";

/**
 * The pipeline definition that a file exports as default.
 * @throws ConfigurationError when there is no such file, no such export, or the definition is wrong.
 */
export async function readDefinition(file: string): Promise<Pipeline> {
  const path = resolve(file);
  const wrong = (remedy: string) =>
    new ConfigurationError("The pipeline definition", [
      { path: "--pipeline or TRIBUTARY_PIPELINE", value: file, remedy },
    ]);
  const found = await stat(path).catch(() => undefined);
  if (!found?.isFile())
    throw wrong(`no such file (looked for ${path}): name the file that exports the definition`);
  const module: { default?: unknown } = await import(pathToFileURL(path).href).catch((error: unknown) => {
    if (error instanceof TributaryError) throw error;
    throw wrong(`the file cannot be loaded: ${error instanceof Error ? error.message : String(error)}`);
  });
  if (module.default === undefined)
    throw wrong("the file has no default export: export default definePipeline({…})");
  return definePipeline(module.default as PipelineInput);
}
