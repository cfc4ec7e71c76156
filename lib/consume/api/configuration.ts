import * as z from "zod/mini";
import { ConfigurationError } from "../../change/tributary-error.ts";
import { CLAIM_BUCKET_VARIABLE, claimLocation } from "../../claim-check/open-claim-store.ts";
import { unpackTopics } from "../../definition/topic-variables.ts";

/** A consumer's environment; the CDK app and the local host set it from the pipeline definition. */
export interface ConsumerConfiguration {
  readonly stateTable: string;
  readonly pipeline: string;
  readonly deadLetterQueueUrl: string | undefined;
  /** Calls of a handler for one change before it is given up. */
  readonly attempts: number;
  /**
   * What follows a change that failed for good: under `park` later changes of its key wait behind it and all else goes
   * on, under `skip` they do not wait, `stop` holds its partition.
   */
  readonly poison: "park" | "skip" | "stop";
  /** Topic patterns of the consumer; records of other topics are passed. Undefined: all are its own. */
  readonly topics: readonly string[] | undefined;
  /** How long the stream keeps records, in milliseconds. Undefined: records that expired unread behind a writer's start are not detected. */
  readonly retentionMs: number | undefined;
}

const words = (what: string) => z.string(`set it to ${what}`).check(z.minLength(1, `set it to ${what}`));

const environment = z.object({
  TRIBUTARY_STATE_TABLE: words("the name of the state table"),
  TRIBUTARY_PIPELINE_NAME: words("the name of the pipeline"),
  TRIBUTARY_DEAD_LETTER_QUEUE_URL: z.optional(
    z.string().check(z.regex(/^https?:\/\//, "set it to the queue's URL")),
  ),
  TRIBUTARY_ATTEMPTS: z._default(
    z.string().check(z.regex(/^([1-9]\d?|100)$/, "write a number from 1 to 100")),
    "3",
  ),
  TRIBUTARY_POISON: z._default(z.enum(["park", "skip", "stop"], "write park, skip or stop"), "park"),
  TRIBUTARY_RETENTION_HOURS: z.optional(
    z.string().check(z.regex(/^[1-9]\d{0,4}$/, "write the stream's retention in whole hours")),
  ),
  TRIBUTARY_TOPICS: z.optional(
    z.string().check(z.regex(/^[^,]+(,[^,]+)*$/, "write topic patterns with commas between them")),
  ),
  TRIBUTARY_TOPICS_PACKED: z.optional(
    z
      .string()
      .check(
        z.refine(isPackedTopics, "leave it to the deployment, or list the patterns in TRIBUTARY_TOPICS"),
      ),
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
  const parsed = environment.safeParse(variables);
  const problems = parsed.success
    ? []
    : parsed.error.issues.map((issue) => {
        const path = issue.path.join(".");
        return { path, value: variables[path], remedy: issue.message };
      });
  if (parsed.success && parsed.data.TRIBUTARY_POISON !== "stop") {
    if (parsed.data.TRIBUTARY_DEAD_LETTER_QUEUE_URL === undefined) {
      problems.push({
        path: "TRIBUTARY_DEAD_LETTER_QUEUE_URL",
        value: undefined,
        remedy:
          "set it to the queue's URL: unless TRIBUTARY_POISON=stop, somebody must hear of a change that failed",
      });
    }
  }
  if (!parsed.success || problems.length > 0)
    throw new ConfigurationError("The consumer's environment", problems);
  const claims = variables[CLAIM_BUCKET_VARIABLE];
  if (claims) claimLocation(claims);
  const { data } = parsed;
  return {
    stateTable: data.TRIBUTARY_STATE_TABLE,
    pipeline: data.TRIBUTARY_PIPELINE_NAME,
    deadLetterQueueUrl: data.TRIBUTARY_DEAD_LETTER_QUEUE_URL,
    attempts: Number(data.TRIBUTARY_ATTEMPTS),
    poison: data.TRIBUTARY_POISON,
    topics:
      data.TRIBUTARY_TOPICS_PACKED === undefined
        ? data.TRIBUTARY_TOPICS?.split(",")
        : unpackTopics(data.TRIBUTARY_TOPICS_PACKED),
    retentionMs:
      data.TRIBUTARY_RETENTION_HOURS === undefined
        ? undefined
        : Number(data.TRIBUTARY_RETENTION_HOURS) * 3_600_000,
  };
}
