import { objectOf, oneOf, optional, type ShapeOf, textLike, textWhere } from "../../change/shape.ts";
import { ConfigurationError } from "../../change/tributary-error.ts";
import { CLAIM_BUCKET_VARIABLE, claimLocation } from "../../claim-check/open-claim-store.ts";
import { unpackTopics } from "../../definition/topic-variables.ts";
import { stageFromEnvironment } from "../../telemetry/stage.ts";

/** A consumer's environment; the CDK app and the local host set it from the pipeline definition. */
export interface ConsumerConfiguration {
  readonly stateTable: string;
  readonly pipeline: string;
  /** A dimension of its metrics. */
  readonly stage: string;
  readonly deadLetterQueueUrl: string | undefined;
  /** Calls of a handler for one change before it is given up. */
  readonly attempts: number;
  /**
   * Policy for a change that failed for good: under `park` later changes of its key wait behind it and all else goes
   * on, under `skip` they do not wait, `stop` holds its partition.
   */
  readonly poison: "park" | "skip" | "stop";
  /** Writes message and stack of what handlers throw to its log; they may hold values of rows. */
  readonly logErrors: boolean;
  /** Topic patterns of the consumer; records of other topics are passed. Undefined: all are its own. */
  readonly topics: readonly string[] | undefined;
  /** Retention of the stream, in milliseconds. Undefined: records that expired unread behind a writer's start are not detected. */
  readonly retentionMs: number | undefined;
}

const word = (what: string) => textWhere((value) => value !== "", `set it to ${what}`);
const matching = (pattern: RegExp, remedy: string) => optional(textLike(pattern, remedy));

const environment = objectOf({
  TRIBUTARY_STATE_TABLE: word("the name of the state table"),
  TRIBUTARY_PIPELINE_NAME: word("the name of the pipeline"),
  TRIBUTARY_DEAD_LETTER_QUEUE_URL: matching(/^https?:\/\//, "set it to the queue's URL"),
  TRIBUTARY_ATTEMPTS: matching(/^([1-9]\d?|100)$/, "write a number from 1 to 100"),
  TRIBUTARY_POISON: optional(oneOf(["park", "skip", "stop"], "write park, skip or stop")),
  TRIBUTARY_LOG_ERRORS: optional(oneOf(["true", "false"], "write true or false")),
  TRIBUTARY_RETENTION_HOURS: matching(/^[1-9]\d{0,4}$/, "write the stream's retention in whole hours"),
  TRIBUTARY_TOPICS: matching(/^[^,]+(,[^,]+)*$/, "write topic patterns with commas between them"),
  TRIBUTARY_TOPICS_PACKED: optional(
    textWhere(isPackedTopics, "leave it to the deployment, or list the patterns in TRIBUTARY_TOPICS"),
  ),
});

function isPackedTopics(text: string): boolean {
  try {
    return unpackTopics(text).every((pattern) => pattern !== "");
  } catch {
    return false;
  }
}

/** @throws ConfigurationError naming every variable that is wrong. */
export function readConfiguration(
  variables: Readonly<Record<string, string | undefined>>,
): ConsumerConfiguration {
  const problems = environment(variables).map(([path, remedy]) => ({ path, value: variables[path], remedy }));
  const {
    TRIBUTARY_STATE_TABLE: stateTable,
    TRIBUTARY_PIPELINE_NAME: pipeline,
    TRIBUTARY_DEAD_LETTER_QUEUE_URL: deadLetterQueueUrl,
    TRIBUTARY_ATTEMPTS: attempts = "3",
    TRIBUTARY_POISON: poison = "park",
    TRIBUTARY_LOG_ERRORS: logErrors,
    TRIBUTARY_RETENTION_HOURS: hours,
    TRIBUTARY_TOPICS: topics,
    TRIBUTARY_TOPICS_PACKED: packed,
  } = variables as ShapeOf<typeof environment>;
  if (problems.length === 0 && poison !== "stop" && deadLetterQueueUrl === undefined) {
    problems.push({
      path: "TRIBUTARY_DEAD_LETTER_QUEUE_URL",
      value: undefined,
      remedy:
        "set it to the queue's URL: unless TRIBUTARY_POISON=stop, somebody must hear of a change that failed",
    });
  }
  if (problems.length > 0) throw new ConfigurationError("The consumer's environment", problems);
  const claims = variables[CLAIM_BUCKET_VARIABLE];
  if (claims) claimLocation(claims);
  return {
    ...{ stateTable, pipeline, deadLetterQueueUrl, attempts: Number(attempts), poison },
    stage: stageFromEnvironment(variables),
    logErrors: logErrors === "true",
    topics: packed === undefined ? topics?.split(",") : unpackTopics(packed),
    retentionMs: hours === undefined ? undefined : Number(hours) * 3_600_000,
  };
}
