import { CAPTURE_DEAD_LETTER_VARIABLE } from "../capture/dead-letters.ts";
import { CLAIM_BUCKET_VARIABLE } from "../claim-check/open-claim-store.ts";
import type { PipelineResources } from "./resources.ts";

/**
 * Returns the resources that variables name as the capture task's environment does, or undefined where none names a state table. Cluster,
 * services and consumers have no variables.
 */
export function resourcesFromEnvironment(
  pipeline: string,
  environment: Readonly<Record<string, string | undefined>>,
): PipelineResources | undefined {
  const named = (variable: string) => environment[variable] || undefined;
  const stateTable = named("TRIBUTARY_STATE_TABLE");
  if (stateTable === undefined) return undefined;
  return {
    pipeline,
    place: `state table ${stateTable}`,
    stack: undefined,
    stateTable,
    stream: named("TRIBUTARY_STREAM"),
    claimStore: named(CLAIM_BUCKET_VARIABLE),
    captureDeadLetters: named(CAPTURE_DEAD_LETTER_VARIABLE),
    captures: [],
    consumers: {},
  };
}

/** Returns the variables that name these resources, as the capture task's environment does; undefined for those that must not be set. */
export function environmentOf({
  pipeline,
  stateTable,
  stream,
  claimStore,
  captureDeadLetters,
}: PipelineResources): Readonly<Record<string, string | undefined>> {
  return {
    TRIBUTARY_PIPELINE_NAME: pipeline,
    TRIBUTARY_STATE_TABLE: stateTable,
    TRIBUTARY_STREAM: stream,
    [CLAIM_BUCKET_VARIABLE]: claimStore,
    [CAPTURE_DEAD_LETTER_VARIABLE]: captureDeadLetters,
  };
}
