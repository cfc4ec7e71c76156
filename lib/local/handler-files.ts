import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { ConfigurationError } from "../change/tributary-error.ts";
import type { Pipeline } from "../definition/definition.ts";

/**
 * Sees that every consumer's file is there, before anything is started. Paths are taken from the working directory.
 * @throws ConfigurationError naming each one that is not.
 */
export async function checkHandlerFiles({ consumers }: Pick<Pipeline, "consumers">): Promise<void> {
  const found = await Promise.all(consumers.map(({ entry }) => stat(entry).catch(() => undefined)));
  const problems = consumers.flatMap(({ entry }, i) =>
    found[i]?.isFile()
      ? []
      : [
          {
            path: `consumers[${i}].entry`,
            value: entry,
            remedy: `name a file that exists (looked for ${resolve(entry)})`,
          },
        ],
  );
  if (problems.length > 0) throw new ConfigurationError("The pipeline definition", problems);
}
