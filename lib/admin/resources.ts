/**
 * The resources of one pipeline where it runs: read from a stack's outputs, from the `tributary dev` that runs here, or from variables of
 * the environment. A field is undefined where that place does not have or does not tell it.
 */
export interface PipelineResources {
  readonly pipeline: string;
  /** The place, for people: `stack Shop in eu-west-1`, `tributary dev (process 812)`. */
  readonly place: string;
  /** Name of the CloudFormation stack, on AWS. */
  readonly stack: string | undefined;
  readonly stateTable: string;
  /** Name of the Kinesis stream. */
  readonly stream: string | undefined;
  /** URL of the claim store. */
  readonly claimStore: string | undefined;
  /** URL of capture's dead-letter queue. */
  readonly captureDeadLetters: string | undefined;
  /** One for each slot. */
  readonly captures: readonly CaptureResources[];
  /** By the name of the consumer. */
  readonly consumers: Readonly<Record<string, ConsumerResources>>;
}

/** The ECS service that runs a capture task. */
export interface CaptureResources {
  readonly slot: number;
  readonly cluster: string;
  readonly service: string;
}

/** The resources of one consumer. */
export interface ConsumerResources {
  /** Name of its Lambda function. */
  readonly function: string | undefined;
  /** UUID of its event source mapping. */
  readonly mapping: string | undefined;
  /** Name of its redrive function. */
  readonly redriveFunction: string | undefined;
  /** ARN of the task definition that `verify --remote` runs; only of a consumer whose sink can be read from the capture task's network. */
  readonly verifyTask: string | undefined;
  /** Its handler file, under `tributary dev`. */
  readonly entry: string | undefined;
  /** URL of its dead-letter queue. */
  readonly deadLetterQueue: string | undefined;
}
