import { rm } from "node:fs/promises";
import { extname } from "node:path";
import { fileURLToPath } from "node:url";
import type { Pipeline } from "../../definition/definition.ts";
import type { LocalAws } from "../host.ts";
import { ownIdentity } from "../process-identity.ts";
import type { DevDatabase } from "./database.ts";
import { DEV_FILE, type DevFile } from "./dev-file-format.ts";
import { DEV_LEASE_MS } from "./history.ts";
import { type StateDirectory, writeWhole } from "./state-directory.ts";

/** The definition as `tributary dev` runs it: TypeScript here, JavaScript where the package is installed. */
export const DEV_DEFINITION = fileURLToPath(
  new URL(`./pipeline${extname(import.meta.filename)}`, import.meta.url),
);

/** The facts of a run. */
export interface RunFacts {
  readonly project: string;
  readonly definition: Pipeline;
  readonly aws: LocalAws;
  readonly database: DevDatabase;
  /** Variables for `pipeline.ts`. */
  readonly variables: Readonly<Record<string, string>>;
  /** File of each consumer's code. */
  readonly entries: Readonly<Record<string, string>>;
}

/** Writes what the verbs need to speak to this run; nobody else may read it (mode 0600). No password is in it. */
export async function writeDevFile(directory: StateDirectory, facts: RunFacts): Promise<void> {
  const { project, definition, aws, database, variables, entries } = facts;
  const { resources } = aws;
  const { passwordFile } = database;
  const hasPassword = withoutPassword(database.url) !== database.url;
  const file: DevFile = {
    ...ownIdentity(),
    project,
    pipeline: definition.name,
    database: {
      url: withoutPassword(database.url),
      needsPassword: hasPassword && passwordFile === undefined,
      ...(passwordFile !== undefined && { passwordFile }),
    },
    environment: {
      ...aws.environment,
      ...resources.captureEnvironment,
      ...variables,
      TRIBUTARY_PIPELINE: DEV_DEFINITION,
      TRIBUTARY_PIPELINE_NAME: definition.name,
      TRIBUTARY_STATE_TABLE: resources.stateTable,
      TRIBUTARY_STREAM: resources.stream,
      TRIBUTARY_LEASE_MS: String(DEV_LEASE_MS),
    },
    consumers: Object.fromEntries(
      definition.consumers.map(({ name }) => [
        name,
        { entry: entries[name] ?? "", deadLetterQueue: resources.deadLetterQueues.get(name) ?? "" },
      ]),
    ),
  };
  await writeWhole(directory.file(DEV_FILE), `${JSON.stringify(file, undefined, 2)}\n`);
}

/** The run is over. */
export async function removeDevFile(directory: StateDirectory): Promise<void> {
  await rm(directory.file(DEV_FILE), { force: true });
}

/** The URL of a database without its password, which may hold an `@`: the last one ends it, as where the URL is read. */
export function withoutPassword(url: string): string {
  return url.replace(/^([^:]+:\/\/[^:@/?#]*):[^/?#]*@/, "$1@").replace(/([?&])password=[^&]*&?/, "$1");
}
