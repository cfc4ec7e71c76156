import { readFile } from "node:fs/promises";
import { isAbsolute, join } from "node:path";
import * as z from "zod";

const manifest = z.object({
  dockerImages: z.record(z.string(), z.object({ source: z.object({ directory: z.string() }) })),
});

/** The build context of a pipeline's container image, in the cloud assembly (`cdk.out`) of its stack. */
export async function imageContext(assembly: string, stack: string, pipeline: string): Promise<string> {
  const text = await readFile(join(assembly, `${stack}.assets.json`), "utf8");
  const images = Object.values(manifest.parse(JSON.parse(text)).dockerImages);
  for (const { source } of images) {
    const directory = isAbsolute(source.directory) ? source.directory : join(assembly, source.directory);
    const file = await readFile(join(directory, "pipeline.mjs"), "utf8");
    // As the top of the definition has it: two blanks before it.
    if (file.includes(`\n  "name": "${pipeline}",\n`)) return directory;
  }
  throw new Error(`no image of ${pipeline} among ${images.length} in ${assembly}`);
}
