import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseEnv } from "node:util";
import { findDefinition } from "../definition/find-definition.ts";

/** Variables that name a place, or who asks there. */
const OF_A_PLACE = /^(AWS|TRIBUTARY)_/;

/**
 * Adds to the environment what `.env` of the definition's project says, where `init` keeps the database's URL. What the environment has
 * already stays; where it names a place, such as a stack's, nothing of another one comes beside it.
 * @throws ConfigurationError where there is no definition.
 */
export async function loadProjectEnvironment(pipeline: string | undefined): Promise<void> {
  const { projectDirectory } = await findDefinition(pipeline);
  const text = await readFile(join(projectDirectory, ".env"), "utf8").catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    return "";
  });
  const isPlaced = Boolean(process.env.TRIBUTARY_STATE_TABLE);
  for (const [name, value] of Object.entries(parseEnv(text))) {
    if (isPlaced && OF_A_PLACE.test(name)) continue;
    process.env[name] ??= value;
  }
}
