import { resourcesFromEnvironment } from "../admin/environment-resources.ts";
import type { PipelineResources } from "../admin/resources.ts";
import { pipelineOfStack } from "../admin/stack-resources.ts";
import { ConfigurationError } from "../change/tributary-error.ts";
import type { Pipeline } from "../definition/definition.ts";
import { type DevFile, findDevRun } from "../local/dev/dev-file-format.ts";
import { type PlaceOptions, stateTableMissing } from "./options.ts";
import { stackOf } from "./speak-to-stack.ts";

/**
 * Returns the resources of a pipeline in the place that a verb speaks to: a stack, the `tributary dev` of this folder, or what options and
 * variables name. Called in a verb's action, when `speakToPlace` has set the environment.
 * @throws ConfigurationError where nothing names a state table; the errors of `readStack`, `pipelineOfStack`.
 */
export async function resourcesOf(
  { name }: Pick<Pipeline, "name">,
  { stateTable }: PlaceOptions,
  { folder = process.cwd(), environment = process.env as Record<string, string | undefined> } = {},
): Promise<PipelineResources> {
  const named = stateTable ? { ...environment, TRIBUTARY_STATE_TABLE: stateTable } : environment;
  if (environment.TRIBUTARY_STACK)
    return pipelineOfStack(await stackOf(environment.TRIBUTARY_STACK, environment), name);
  const resources = resourcesFromEnvironment(name, named);
  if (resources === undefined) throw new ConfigurationError("The command line", [stateTableMissing()]);
  const run = await findDevRun(folder);
  return run !== undefined && isSpokenTo(run, named) ? ofDev(run, resources) : resources;
}

/** Tells whether the environment is the one that `speakToPlace` gave to the verb. */
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
        {
          function: undefined,
          mapping: undefined,
          redriveFunction: undefined,
          verifyTask: undefined,
          entry,
          deadLetterQueue,
        },
      ]),
    ),
  };
}
