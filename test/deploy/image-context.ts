import { readFile } from "node:fs/promises";
import { isAbsolute, join } from "node:path";
import * as z from "zod";

const manifest = z.object({
  dockerImages: z.record(z.string(), z.object({ source: z.object({ directory: z.string() }) })),
});

/** The build context of a stack's one container image, in its cloud assembly (`cdk.out`). */
export async function imageContext(assembly: string, stack: string): Promise<string> {
  const text = await readFile(join(assembly, `${stack}.assets.json`), "utf8");
  const images = Object.values(manifest.parse(JSON.parse(text)).dockerImages);
  const [image, ...others] = images;
  if (!image || others.length > 0) throw new Error(`not one image in ${assembly}: ${images.length}`);
  const { directory } = image.source;
  return isAbsolute(directory) ? directory : join(assembly, directory);
}
