import { join } from "node:path";
import { findDefinition } from "../definition/find-definition.ts";

/**
 * Adds to the environment what `.env` of the definition's project says, where `init` keeps the database's URL. What the environment has
 * already stays.
 * @throws ConfigurationError where there is no definition.
 */
export async function loadProjectEnvironment(pipeline: string | undefined): Promise<void> {
  const { projectDirectory } = await findDefinition(pipeline);
  try {
    process.loadEnvFile(join(projectDirectory, ".env"));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}
