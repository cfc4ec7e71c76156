import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { ConfigurationError } from "../../lib/change/tributary-error.ts";

/** Of the package managers that CDK's bundling knows: https://docs.aws.amazon.com/cdk/api/v2/docs/aws-cdk-lib.aws_lambda_nodejs-readme.html#lock-file */
const LOCK_FILES = ["package-lock.json", "yarn.lock", "pnpm-lock.yaml", "bun.lock", "bun.lockb"];

/**
 * The lock file of a project, from its directory upwards (a workspace's stands at its root).
 * @throws ConfigurationError when there is none.
 */
export function findLockFile(projectRoot: string): string {
  for (let directory = projectRoot; ; directory = dirname(directory)) {
    const found = LOCK_FILES.map((name) => join(directory, name)).find(existsSync);
    if (found) return found;
    if (dirname(directory) === directory) break;
  }
  throw new ConfigurationError("CdcPipeline", [
    {
      path: "projectRoot",
      value: projectRoot,
      remedy: `neither it nor a directory above has a lock file (${LOCK_FILES.join(", ")}): name the project that has the handlers`,
    },
  ]);
}
