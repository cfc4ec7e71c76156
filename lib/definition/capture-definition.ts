import type { ConsumerDefinition, Pipeline } from "./definition.ts";

/** Replaces the entry of each consumer: the image contains no handlers. */
const NO_ENTRY = "not in the capture image";

/** A definition as it stands in the capture image; `definePipeline` fills in defaults for what it lacks. */
export type CaptureDefinition = Omit<Pipeline, "consumers"> & {
  readonly consumers: readonly Pick<ConsumerDefinition, "name" | "entry" | "topics" | "startAt">[];
};

/**
 * Returns the definition that goes into the capture image: what capture reads, and of its consumers their names, topics and starts. What
 * only their functions and mappings have is left out, and so is their order, so that a change of it neither builds the image again nor
 * restarts capture.
 */
export function captureDefinition(pipeline: Pipeline): CaptureDefinition {
  return {
    ...pipeline,
    consumers: pipeline.consumers
      .map(({ name, topics, startAt }) => ({
        ...{ name, entry: NO_ENTRY, topics: [...topics].sort() },
        ...(startAt === undefined ? {} : { startAt }),
      }))
      .sort((a, b) => (a.name < b.name ? -1 : 1)),
  };
}
