import type { Service, Task } from "@aws-sdk/client-ecs";
import { ecsClient } from "../../aws/clients.ts";
import type { CaptureResources } from "../resources.ts";
import { askAws } from "./ask-aws.ts";
import { type Check, NotChecked, outcomeOf } from "./check.ts";
import { CaptureServiceError } from "./doctor-errors.ts";
import type { Examination } from "./examination.ts";

/** The ECS services of the capture tasks. */
export function captureServiceChecks(examination: Examination): readonly Check[] {
  const captures = examination.subject.resources?.captures ?? [];
  if (captures.length === 0)
    return [
      {
        name: "capture service",
        async look() {
          throw new NotChecked(`${examination.requireResources().place} does not name it`);
        },
      },
    ];
  return captures.map((capture) => ({
    name: captures.length === 1 ? "capture service" : `capture service ${capture.slot}`,
    async look(signal) {
      await examination.signedIn();
      const service = await readService(examination, capture, signal);
      const { desiredCount: wanted = 0, runningCount: running = 0, pendingCount: pending = 0 } = service;
      if (running > 0 && running >= wanted)
        return outcomeOf([], `${capture.service}: ${running} of ${wanted} tasks run`);
      if (wanted === 0)
        return outcomeOf(
          [
            new CaptureServiceError({
              message: `the service ${capture.service} is to run no task (desired count 0): nothing is captured, and the server keeps its log`,
              remedy: `Resume capture where it was paused, or: aws ecs update-service --cluster ${capture.cluster} --service ${capture.service} --desired-count 1`,
            }),
          ],
          "",
        );
      const last = await lastStopped(examination, capture, signal).catch(() => undefined);
      return outcomeOf(
        [
          new CaptureServiceError({
            message: `the service ${capture.service} runs ${running} of ${wanted} tasks (${pending} are starting)${last ? `; the last one ended: ${last}` : ""}`,
            remedy:
              "Read the end of its log, which tells a code and what to do, and tributary capture status; then let ECS start it anew.",
          }),
        ],
        "",
      );
    },
  }));
}

/** A service as ECS has it. @throws NotChecked, CaptureServiceError */
export async function readService(
  examination: Examination,
  { cluster, service }: CaptureResources,
  signal: AbortSignal,
): Promise<Service> {
  const { DescribeServicesCommand } = await import("@aws-sdk/client-ecs");
  const client = await ecsClient(examination.subject.environment);
  const missing = (cause: unknown) =>
    new CaptureServiceError({
      message: `there is no service ${service} in the cluster ${cluster}`,
      remedy: "Deploy the stack again (cdk deploy).",
      cause,
    });
  const { services = [] } = await askAws(
    "ecs:DescribeServices",
    () => client.send(new DescribeServicesCommand({ cluster, services: [service] }), { abortSignal: signal }),
    { names: ["ClusterNotFoundException", "ServiceNotFoundException"], error: missing },
  ).finally(() => client.destroy());
  const [found] = services;
  if (!found || found.status === "INACTIVE") throw missing(undefined);
  return found;
}

/** Why the last task ended: ECS tells for about an hour. */
async function lastStopped(
  examination: Examination,
  { cluster, service }: CaptureResources,
  signal: AbortSignal,
): Promise<string | undefined> {
  const { DescribeTasksCommand, ListTasksCommand } = await import("@aws-sdk/client-ecs");
  const client = await ecsClient(examination.subject.environment);
  try {
    const list = new ListTasksCommand({ cluster, serviceName: service, desiredStatus: "STOPPED" });
    const { taskArns = [] } = await client.send(list, { abortSignal: signal });
    if (taskArns.length === 0) return undefined;
    const { tasks = [] } = await client.send(new DescribeTasksCommand({ cluster, tasks: taskArns }), {
      abortSignal: signal,
    });
    const stoppedAt = ({ stoppedAt: at }: Task) => at?.getTime() ?? 0;
    const [last] = tasks.toSorted((a, b) => stoppedAt(b) - stoppedAt(a));
    const ended = last?.containers?.find(({ exitCode, reason }) => exitCode !== undefined || reason);
    const how = [ended?.reason, ended?.exitCode === undefined ? undefined : `exit code ${ended.exitCode}`];
    return [last?.stoppedReason, ...how].filter(Boolean).join("; ") || undefined;
  } finally {
    client.destroy();
  }
}
