import type { SQSClient } from "@aws-sdk/client-sqs";
import { dynamodbClient, type Environment, sqsClient } from "../../aws/clients.ts";
import type { ClaimStore } from "../../change/claim-store.ts";
import { CLAIM_BUCKET_VARIABLE, claimStoreFromEnvironment } from "../../claim-check/open-claim-store.ts";
import type { ConsumerPlace } from "../../consume/fence/consumer-table.ts";
import type { StatePlace } from "../../state/persistent-table.ts";
import type { PipelineResources } from "../resources.ts";

/** The places in which a pipeline's dead letters stand, and the clients that reach them. */
export interface DeadLetterPlace {
  readonly state: StatePlace;
  readonly sqs: SQSClient;
  /** URL of each consumer's dead-letter queue, as far as it is known. */
  readonly queues: Readonly<Record<string, string | undefined>>;
  /** URL of capture's dead-letter queue; undefined: it has none, or nobody knows. */
  readonly captureQueue: string | undefined;
  /** Opens the store of large changes; undefined where nobody names one. */
  readonly openClaims: () => Promise<ClaimStore | undefined>;
}

/** Settings of `deadLetterPlace`. */
export interface DeadLetterPlaceOptions {
  /** Region, credentials and endpoints of AWS, as every SDK reads them. Default: `process.env`. */
  readonly environment?: Environment;
  /** Ends what waits. */
  readonly signal?: AbortSignal;
}

/**
 * Returns where a pipeline's dead letters stand, by the resources of the pipeline. Makes no call.
 *
 * @example
 * const place = deadLetterPlace(resources);
 * const { letters } = await listDeadLetters(place, ["orders"]);
 */
export function deadLetterPlace(
  {
    pipeline,
    stateTable,
    consumers,
    captureDeadLetters,
    claimStore,
  }: Pick<PipelineResources, "pipeline" | "stateTable" | "consumers" | "captureDeadLetters" | "claimStore">,
  { environment = process.env, signal = new AbortController().signal }: DeadLetterPlaceOptions = {},
): DeadLetterPlace {
  return {
    state: { dynamodb: dynamodbClient(environment), table: stateTable, pipeline, signal },
    sqs: sqsClient(environment),
    queues: Object.fromEntries(
      Object.entries(consumers).map(([name, { deadLetterQueue }]) => [name, deadLetterQueue]),
    ),
    captureQueue: captureDeadLetters,
    openClaims: () =>
      claimStoreFromEnvironment({
        ...environment,
        ...(claimStore && { [CLAIM_BUCKET_VARIABLE]: claimStore }),
      }),
  };
}

/** Returns the place of one consumer's state. */
export function consumerPlaceOf({ state }: Pick<DeadLetterPlace, "state">, consumer: string): ConsumerPlace {
  const { dynamodb, table, pipeline } = state;
  return { dynamodb, table, pipeline, consumer };
}
