import { defineError } from "../change/tributary-error.ts";

/** The one-off task of a remote verb did not start, or ended without saying how its verb went. */
export class RemoteTaskError extends defineError("REMOTE_TASK", "stop").from(
  (what: string, reason: string) => ({
    message: `${what}: ${reason}`,
    remedy: remedyFor(reason),
  }),
) {}

/** A remote verb was given up: its task was asked to stop. */
export class RemoteTaskStoppedError extends defineError("REMOTE_STOPPED", "stop").from(
  (task: string | undefined, why: string) => ({
    message: `${why}: ${task === undefined ? "no task was started" : `the task ${task} was asked to stop`}`,
    remedy:
      task === undefined
        ? "Nothing was done: run the verb again."
        : "What the verb had done is done: run it again, without --confirm first, to see what is left. A task that is told to stop ends within two minutes.",
  }),
) {}

/** The capture service cannot lend its task definition to a verb. */
export class RemoteImageError extends defineError("REMOTE_IMAGE", "stop").from(
  (service: string, what: string) => ({
    message: `verbs cannot run as a task of the service ${service}: ${what}`,
    remedy:
      "Deploy the stack with this version (npx cdk deploy), and with its own image where -c captureImage names one.",
  }),
) {}

/** The stack has no task that can read the sink of a consumer. */
export class NoVerifyTaskError extends defineError("REMOTE_SINK", "stop").from(
  (consumer: string, place: string) => ({
    message: `the ${place} has no task that can read the sink of "${consumer}"`,
    remedy:
      'Have the consumer\'s entry file export `sink` beside `handler` (docs, "Consumers"), and deploy with this version (npx cdk deploy). A consumer whose function is in another VPC than capture has none: run verify where database and sink are both reached, without --remote.',
  }),
) {}

/** What Fargate says most, and what helps: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/stopped-task-error-codes.html */
const REASONS: readonly (readonly [RegExp, string])[] = [
  [
    /CannotPull|ImagePull|pull(?:ing)? image/i,
    "The image was not fetched: see that it is still in its registry, that the subnets have a way there (NAT, or endpoints for ecr.api, ecr.dkr and S3), and what the execution role may do.",
  ],
  [
    /ResourceInitializationError|secret|log (?:group|stream|driver)/i,
    "What the task needs before it starts was not reached: see that the subnets have a way to CloudWatch Logs and to Secrets Manager, and that the log group is there.",
  ],
  [/OutOfMemory|code 137/i, "The task ran out of memory: raise capture.memoryMiB and deploy."],
  [
    /RESOURCE:|Capacity|quota|limit/i,
    "Fargate had no room for it, or an account's quota is reached: try again in some minutes, and look at the quotas of Fargate.",
  ],
  [
    /subnet|security group|ENI|network interface/i,
    "See that the service's subnets have free addresses, and its security groups are there.",
  ],
];

function remedyFor(reason: string): string {
  const found = REASONS.find(([pattern]) => pattern.test(reason))?.[1];
  return `${found ?? "Look at the task in the ECS console, under stopped tasks, and at the capture task's log group."} Then run the verb again.`;
}
