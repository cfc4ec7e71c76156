import * as z from "zod";
import { callJson, callRest } from "./aws-api.ts";
import type { Cloud } from "./cloud.ts";

/* What a stack has become in AWS, as AWS's own API tells it. */

const containers = z.object({
  taskDefinition: z.object({
    containerDefinitions: z
      .array(
        z.preprocess(
          decapitalised,
          z.object({
            environment: z.array(z.object({ name: z.string(), value: z.string() })),
            healthCheck: z.object({ command: z.array(z.string()) }),
          }),
        ),
      )
      .min(1),
  }),
});

/** A container of a task definition, as ECS would run it. */
export type ContainerDefinition = z.output<
  typeof containers
>["taskDefinition"]["containerDefinitions"][number];

/** ARNs of the stack's ECS services, by cluster. */
export async function listServices(
  cloud: Cloud,
  stack: string,
): Promise<{ cluster: string; service: string }[]> {
  const { clusterArns } = await ecs(
    cloud,
    "ListClusters",
    {},
    z.object({ clusterArns: z.array(z.string()) }),
  );
  const services = await Promise.all(
    clusterArns
      .filter((arn) => arn.includes(stack))
      .map(async (cluster) => {
        const answer = z.object({ serviceArns: z.array(z.string()) });
        const { serviceArns } = await ecs(cloud, "ListServices", { cluster }, answer);
        return serviceArns.map((service) => ({ cluster, service }));
      }),
  );
  return services.flat();
}

/** The containers of the task definitions that the stack's services run: of each slot's one. */
export async function captureContainers(cloud: Cloud, stack: string): Promise<ContainerDefinition[]> {
  const services = await listServices(cloud, stack);
  return Promise.all(services.map((found) => containerOf(cloud, found)));
}

async function containerOf(
  cloud: Cloud,
  found: { readonly cluster: string; readonly service: string },
): Promise<ContainerDefinition> {
  const { services } = await ecs(
    cloud,
    "DescribeServices",
    { cluster: found.cluster, services: [found.service] },
    z.object({ services: z.array(z.object({ taskDefinition: z.string() })).length(1) }),
  );
  const taskDefinition = services[0]?.taskDefinition;
  const answer = await ecs(cloud, "DescribeTaskDefinition", { taskDefinition }, containers);
  const [container] = answer.taskDefinition.containerDefinitions;
  if (!container) throw new Error("the task definition has no container");
  return container;
}

const functions = z.object({
  Functions: z.array(
    z.object({
      FunctionName: z.string(),
      Description: z.string().default(""),
      CodeSha256: z.string(),
      Environment: z
        .object({ Variables: z.record(z.string(), z.string()).default({}) })
        .default({ Variables: {} }),
    }),
  ),
});

/** A Lambda function as it is deployed. */
export type DeployedFunction = z.output<typeof functions>["Functions"][number];

/** The stack's Lambda functions. */
export async function listFunctions(cloud: Cloud, stack: string): Promise<DeployedFunction[]> {
  const path = "/2015-03-31/functions/?MaxItems=50";
  const { Functions } = await callRest(cloud, { service: "lambda", path }, functions);
  return Functions.filter(({ FunctionName }) => FunctionName.startsWith(stack.slice(0, 20)));
}

/** The stack's alarms and dashboards. */
export async function listMonitoring(cloud: Cloud, stack: string): Promise<string[]> {
  const call = (action: string) => ({
    service: "monitoring",
    target: `GraniteServiceVersion20100801.${action}`,
    body: {},
  });
  const alarms = z.object({ MetricAlarms: z.array(z.object({ AlarmName: z.string() })) });
  const dashboards = z.object({ DashboardEntries: z.array(z.object({ DashboardName: z.string() })) });
  const names = [
    ...(await callJson(cloud, call("DescribeAlarms"), alarms)).MetricAlarms.map((alarm) => alarm.AlarmName),
    ...(await callJson(cloud, call("ListDashboards"), dashboards)).DashboardEntries.map(
      (dashboard) => dashboard.DashboardName,
    ),
  ];
  return names.filter((name) => name.includes(stack));
}

/** The stack's log groups. */
export async function listLogGroups(cloud: Cloud, stack: string): Promise<string[]> {
  const { logGroups } = await callJson(
    cloud,
    { service: "logs", target: "Logs_20140328.DescribeLogGroups", body: {} },
    z.object({ logGroups: z.array(z.object({ logGroupName: z.string() })) }),
  );
  return logGroups.map(({ logGroupName }) => logGroupName).filter((name) => name.includes(stack));
}

/** What the functions of a stack have printed, by the logs of CloudWatch. */
export async function functionLines(cloud: Cloud, stack: string): Promise<string[]> {
  const groups = await listLogGroups(cloud, stack);
  const lines = await Promise.all(
    groups.map(async (logGroupName) => {
      const { events } = await callJson(
        cloud,
        { service: "logs", target: "Logs_20140328.FilterLogEvents", body: { logGroupName } },
        z.object({ events: z.array(z.object({ message: z.string() })) }),
      );
      return events.map(({ message }) => message);
    }),
  );
  return lines.flat();
}

function ecs<T>(cloud: Cloud, action: string, body: unknown, answer: z.ZodType<T>): Promise<T> {
  const target = `AmazonEC2ContainerServiceV20141113.${action}`;
  return callJson(cloud, { service: "ecs", target, body }, answer);
}

/** MiniStack gives some members of a task definition with the capitals that CloudFormation has. */
function decapitalised(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(decapitalised);
  if (typeof value !== "object" || value === null) return value;
  const members = Object.entries(value);
  return Object.fromEntries(
    members.map(([name, member]) => [name.charAt(0).toLowerCase() + name.slice(1), decapitalised(member)]),
  );
}
