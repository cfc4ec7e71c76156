import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Cloud, cloudEnvironment } from "./cloud.ts";
import { startProcessGroup } from "./process-group.ts";

const BIN = fileURLToPath(new URL("../../node_modules/.bin", import.meta.url));
const IMAGE_BUILDER = fileURLToPath(new URL("image-builder.sh", import.meta.url));
const DEADLINE_MS = 180_000;
const QUIET = ["--no-notices", "--no-version-reporting"];

/** What a run of the CDK's command line needs. */
export interface CdkOptions {
  /** Where cdk.json stands. */
  readonly directory: string;
  readonly cloud: Cloud;
  /** What the app reads of its environment. */
  readonly environment?: Readonly<Record<string, string>>;
  readonly onLine: (line: string) => void;
}

/**
 * Runs `cdk` as a user would, against an emulated AWS; gives what it printed.
 * @throws Error with what it printed, when it fails or takes more than three minutes.
 */
export async function cdk(args: readonly string[], options: CdkOptions): Promise<string> {
  const { cloud, directory, environment, onLine } = options;
  // It keeps things in its home, and reads credentials there: an empty one.
  const scratchDirectory = await mkdtemp(join(tmpdir(), "tributary-cdk-"));
  const group = startProcessGroup([join(BIN, "cdk"), ...args, ...QUIET], {
    workingDirectory: directory,
    scratchDirectory,
    environment: {
      ...environment,
      ...cloudEnvironment(cloud),
      PATH: [BIN, process.env.PATH].join(delimiter),
      HOME: scratchDirectory,
      TMPDIR: scratchDirectory,
      CI: "true",
      NO_COLOR: "1",
      CDK_DOCKER: IMAGE_BUILDER,
      CDK_DISABLE_CLI_TELEMETRY: "true",
    },
    onLine,
  });
  const impatient = setTimeout(group.stop, DEADLINE_MS);
  const status = await group.ended;
  clearTimeout(impatient);
  if (status === 0) return group.printed();
  const how = status === undefined ? `was ended after ${DEADLINE_MS} ms` : `ended with ${status}`;
  throw new Error(`cdk ${args.join(" ")} ${how}:\n${group.printed()}`);
}
