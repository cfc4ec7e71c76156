import { type DeadLetterPlace, deadLetterPlace } from "../admin/dead-letters/place.ts";
import type { PipelineResources } from "../admin/resources.ts";
import { shellWord } from "../change/printed-command.ts";
import { ConfigurationError } from "../change/tributary-error.ts";
import { type PlaceOptions, readPipeline } from "./options.ts";
import { placeWith, queueOf } from "./redrive-run.ts";
import { resourcesOf } from "./resources-of.ts";

/** The options that say whose dead letters are meant. */
export interface DeadLetterOptions extends PlaceOptions {
  readonly consumer?: string;
  /** Changes that capture put aside. */
  readonly capture?: boolean;
}

/** Where the dead letters stand that options mean, and the names of the consumers that are meant. */
export interface DeadLetterScene {
  readonly place: DeadLetterPlace;
  readonly consumers: readonly string[];
}

/** @throws ConfigurationError where the place is not named, or the consumer is none of the pipeline's */
export async function deadLetterSceneOf(options: DeadLetterOptions): Promise<DeadLetterScene> {
  const { consumer } = options;
  const { resources, names } = await pipelineOf(options);
  if (consumer === undefined) return { place: deadLetterPlace(resources), consumers: names };
  if (!names.includes(consumer)) {
    const remedy = `name one of the pipeline's: ${names.join(", ") || "it has none"}`;
    throw new ConfigurationError("The command line", [{ path: "--consumer", value: consumer, remedy }]);
  }
  // A variable names the queue of one consumer, so it counts where one is named.
  const queue = queueOf(resources, consumer);
  return { place: placeWith(resources, consumer, queue), consumers: [consumer] };
}

/** A stack says itself what consumers there are: no definition is needed here. */
async function pipelineOf(
  options: DeadLetterOptions,
): Promise<{ readonly resources: PipelineResources; readonly names: readonly string[] }> {
  const { TRIBUTARY_STACK, TRIBUTARY_PIPELINE_NAME: name } = process.env;
  if (TRIBUTARY_STACK && name) {
    const resources = await resourcesOf({ name }, options);
    return { resources, names: Object.keys(resources.consumers) };
  }
  const pipeline = await readPipeline(options.pipeline);
  const resources = await resourcesOf(pipeline, options);
  return { resources, names: pipeline.consumers.map((one) => one.name) };
}

/** The options that name a place, as a command that is printed must repeat them. Those of a stack come by `typed`. */
const REPEATED = ["pipeline", "stateTable"] as const;

/** Returns these options as text, so that a printed command means the same place. */
export function placeText(options: PlaceOptions): string {
  const given = options as Readonly<Record<string, unknown>>;
  return REPEATED.flatMap((name) => {
    const value = given[name];
    const flag = name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    return typeof value === "string" ? [` --${flag} ${shellWord(value)}`] : [];
  }).join("");
}
