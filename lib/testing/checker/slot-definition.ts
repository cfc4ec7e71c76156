import { writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import type { Pipeline } from "../../definition/definition.ts";
import { definePipeline, type PipelineInput } from "../../definition/pipeline.ts";

/**
 * The same pipeline over so many slots; undefined: as it is.
 * @throws ConfigurationError where it cannot have so many, or reads no log.
 */
export function withSlots(definition: Pipeline, slots: number | undefined): Pipeline {
  if (slots === undefined) return definition;
  return definePipeline({ ...definition, source: { ...definition.source, slots } } as PipelineInput);
}

/** Writes a file that exports `withSlots` of what another one exports, and gives its path; undefined: the other's. */
export async function writeWithSlots(
  definitionFile: string,
  slots: number | undefined,
  directory: string,
): Promise<string> {
  if (slots === undefined) return definitionFile;
  const path = join(directory, "pipeline.mjs");
  const from = JSON.stringify(pathToFileURL(resolve(definitionFile)).href);
  await writeFile(
    path,
    `import pipeline from ${from};\nimport { withSlots } from "${import.meta.url}";\nexport default withSlots(pipeline, ${slots});\n`,
  );
  return path;
}
