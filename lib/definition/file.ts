import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { ConfigurationError, TributaryError } from "../change/tributary-error.ts";
import type { Pipeline } from "./definition.ts";
import { importFile } from "./import-file.ts";
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
  const module = await importFile(path).catch((error: unknown) => {
    if (error instanceof TributaryError) throw error;
    throw wrong(`the file cannot be loaded: ${loadFailure(error)}`);
  });
  if (module.default === undefined)
    throw wrong("the file has no default export: export default definePipeline({…})");
  return definePipeline(module.default as PipelineInput);
}

function loadFailure(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if ((error as NodeJS.ErrnoException).code !== "ERR_UNSUPPORTED_TYPESCRIPT_SYNTAX") return error.message;
  // The stack begins with file:///…/tributary.config.ts:3, where it may be a file that the definition imports.
  const [place] = error.stack?.split("\n") ?? [];
  return `${error.message} (${place}). Node only removes types: write what is JavaScript without them, such as an object with "as const" for an enum; "erasableSyntaxOnly": true in tsconfig.json shows such places in the editor`;
}
