import { resourcesFromEnvironment } from "../admin/environment-resources.ts";
import type { PipelineResources } from "../admin/resources.ts";
import { ConfigurationError } from "../change/tributary-error.ts";
import type { Pipeline } from "../definition/definition.ts";
import { type DevFile, findDevRun } from "../local/dev/dev-file-format.ts";
import type { PlaceOptions } from "./options.ts";

/**
 * Returns the resources of a pipeline in the place that a verb speaks to: the `tributary dev` of this folder, or what options and
 * variables name. Called in a verb's action, when `speakToDev` has set the environment.
 * @throws ConfigurationError where nothing names a state table.
 */
export async function resourcesOf(
  { name }: Pick<Pipeline, "name">,
  { stateTable }: PlaceOptions,
  { folder = process.cwd(), environment = process.env as Record<string, string | undefined> } = {},
): Promise<PipelineResources> {
  const named = stateTable ? { ...environment, TRIBUTARY_STATE_TABLE: stateTable } : environment;
  const resources = resourcesFromEnvironment(name, named);
  if (resources === undefined) {
    const remedy = "name the pipeline's state table";
    throw new ConfigurationError("The command line", [{ path: "--state-table", value: undefined, remedy }]);
  }
  const run = await findDevRun(folder);
  return run !== undefined && isSpokenTo(run, named) ? ofDev(run, resources) : resources;
}

/** Tells whether the environment is the one that `speakToDev` gave to the verb. */
function isSpokenTo({ environment: theirs }: DevFile, environment: Record<string, string | undefined>) {
  return ["TRIBUTARY_STATE_TABLE", "AWS_ENDPOINT_URL_DYNAMODB"].every(
    (name) => environment[name] === theirs[name],
  );
}

/** The dev file names what a stack's outputs do, and each consumer's file. */
function ofDev(run: DevFile, resources: PipelineResources): PipelineResources {
  return {
    ...resources,
    place: `tributary dev (process ${run.pid})`,
    consumers: Object.fromEntries(
      Object.entries(run.consumers).map(([name, { entry, deadLetterQueue }]) => [
        name,
        { function: undefined, mapping: undefined, redriveFunction: undefined, entry, deadLetterQueue },
      ]),
    ),
  };
}
