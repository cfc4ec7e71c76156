import { type DeadLetterPlace, deadLetterPlace } from "../admin/dead-letters/place.ts";
import { type Redrive, redriveFunction } from "../admin/redrive.ts";
import type { PipelineResources } from "../admin/resources.ts";
import { ConfigurationError, TributaryError } from "../change/tributary-error.ts";
import { RedriveFailedError } from "../consume/dead-letter/redrive-errors.ts";
import { pausedError } from "../consume/dead-letter/redrive-function.ts";
import type { RedriveReport } from "../consume/dead-letter/redrive-request.ts";
import { type PlaceOptions, readPipeline } from "./options.ts";
import { resourcesOf } from "./resources-of.ts";

/** The options that say by what code changes are brought to effect. */
export interface RedriveRunOptions extends PlaceOptions {
  readonly consumer: string;
  readonly function?: string;
  readonly entry?: string;
  readonly json?: boolean;
}

/** The code that redrives a consumer, and where its dead letters stand. */
export interface RedriveScene {
  readonly run: Redrive;
  /** What redrives, for people: the function's name, or the handler's file. */
  readonly by: string;
  /** Undefined where nothing says it: then the queue stays as it is. */
  readonly place: DeadLetterPlace | undefined;
}

/** Time of a step where the handler runs in this process, in milliseconds. */
const LOCAL_STEP_MS = 300_000;
const QUEUE_VARIABLE = "TRIBUTARY_DEAD_LETTER_QUEUE_URL";

/**
 * Returns what redrives a consumer: the function or the file that options name, or else those of the pipeline's stack or of the
 * `tributary dev` that runs here.
 * @throws ConfigurationError where nothing names one.
 */
export async function redriveSceneOf(options: RedriveRunOptions): Promise<RedriveScene> {
  const { consumer } = options;
  if (options.function !== undefined && options.entry !== undefined) throw neitherOrBoth(options.function);
  const isNamed = options.function !== undefined || options.entry !== undefined;
  const resources = await resourcesFor(options, isNamed);
  const known = resources?.consumers[consumer];
  const functionName = options.function ?? (options.entry ? undefined : known?.redriveFunction);
  const entry = options.entry ?? (functionName === undefined ? known?.entry : undefined);
  const queue = queueOf(resources, consumer);
  const place = resources && placeWith(resources, consumer, queue);
  if (functionName !== undefined)
    return { run: await redriveFunction(functionName), by: functionName, place };
  if (entry === undefined) throw neitherOrBoth(undefined);
  return { run: await redriveHere(entry, options, queue), by: entry, place };
}

/**
 * Returns the dead-letter queue of a consumer. A variable names it where variables name the rest: beside a stack it is left over from another
 * place, whose messages are not this pipeline's to delete.
 */
export function queueOf(
  resources: Pick<PipelineResources, "stack" | "consumers"> | undefined,
  consumer: string,
  environment: Readonly<Record<string, string | undefined>> = process.env,
): string | undefined {
  const known = resources?.consumers[consumer]?.deadLetterQueue;
  return known ?? (resources?.stack === undefined ? environment[QUEUE_VARIABLE] : undefined);
}

/** Returns where a pipeline's dead letters stand, with this queue as a consumer's. */
export function placeWith(
  resources: PipelineResources,
  consumer: string,
  queue: string | undefined,
): DeadLetterPlace {
  const place = deadLetterPlace(resources);
  return { ...place, queues: { ...place.queues, [consumer]: queue } };
}

/** Where a function or a file is named, that is enough: nothing is looked for that nobody names. */
async function resourcesFor(
  options: RedriveRunOptions,
  isNamed: boolean,
): Promise<PipelineResources | undefined> {
  const { pipeline, stateTable = process.env.TRIBUTARY_STATE_TABLE } = options;
  if (isNamed && stateTable === undefined && pipeline === undefined) return undefined;
  const name = pipeline === undefined ? process.env.TRIBUTARY_PIPELINE_NAME : undefined;
  try {
    return await resourcesOf(name ? { name } : await readPipeline(pipeline), options);
  } catch (error) {
    if (isNamed && pipeline === undefined && error instanceof TributaryError) return undefined;
    // Nothing says which pipeline: then a function or a file is what is missing.
    throw error instanceof ConfigurationError && !isNamed && stateTable === undefined
      ? neitherOrBoth(undefined)
      : error;
  }
}

function neitherOrBoth(value: string | undefined): ConfigurationError {
  return new ConfigurationError("The command line", [
    {
      path: "--function",
      value,
      remedy:
        "name the function in AWS with --function, or the handler's file with --entry; where tributary dev runs, neither is needed",
    },
  ]);
}

/**
 * The handler in a process of its own: it may end it, and its lines are not ours. What it throws is told with message and stack,
 * whatever the definition says of the log in AWS: here somebody looks, and nobody keeps it.
 */
async function redriveHere(
  entry: string,
  { consumer, json }: RedriveRunOptions,
  queue: string | undefined,
): Promise<Redrive> {
  const { startLambdaFunction } = await import("../local/lambda/host.ts");
  const { HandlerReports } = await import("../local/handler-reports.ts");
  const surroundings = {
    ...{ TRIBUTARY_LOG_ERRORS: "true", ...process.env },
    [QUEUE_VARIABLE]: queue,
  };
  const environment = Object.entries(surroundings).filter(
    (variable): variable is [string, string] => variable[1] !== undefined,
  );
  const say = (line: string) => void process.stderr.write(`${line}\n`);
  const reports = new HandlerReports({ consumer, canRedrive: true, print: say });
  return async (request) => {
    const here = await startLambdaFunction({
      entry,
      timeoutMs: LOCAL_STEP_MS,
      concurrency: 1,
      surroundings: Object.fromEntries(environment),
      sourceMaps: true,
      onLog: (line) => {
        if (json || !reports.take(line)) say(line);
      },
    });
    try {
      const result = await here.invoke(request);
      if (result.ok) return result.response as RedriveReport;
      const { type, message } = result.error;
      const paused = pausedError(type, message);
      if (paused) throw paused;
      // Only of our own errors it is known that their message holds no row values.
      const ours = type === "ConfigurationError" || type === "FenceUnavailableError";
      throw new RedriveFailedError(entry, ours ? message : type);
    } finally {
      await here.stop();
      reports.close();
    }
  };
}
