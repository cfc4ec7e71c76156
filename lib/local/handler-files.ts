import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { ConfigurationError } from "../change/tributary-error.ts";
import type { Pipeline } from "../definition/definition.ts";

/**
 * Sees that every consumer's file is there, before anything is started. Their paths are relative to the project of the definition.
 * @throws ConfigurationError naming each one that is not.
 */
export async function checkHandlerFiles(
  { consumers }: Pick<Pipeline, "consumers">,
  projectDirectory: string,
): Promise<void> {
  const files = consumers.map(({ entry }) => resolve(projectDirectory, entry));
  const found = await Promise.all(files.map((file) => stat(file).catch(() => undefined)));
  const problems = consumers.flatMap(({ entry }, i) =>
    found[i]?.isFile()
      ? []
      : [
          {
            path: `consumers[${i}].entry`,
            value: entry,
            remedy: `name a file that exists (looked for ${files[i]})`,
          },
        ],
  );
  if (problems.length > 0) throw new ConfigurationError("The pipeline definition", problems);
}
