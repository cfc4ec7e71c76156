import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { outputDescription, outputKey, type StackOutput } from "../../../lib/definition/stack-outputs.ts";
import { eventually } from "../../eventually.ts";
import { type AwsAnswer, answerAws, stackXml } from "../admin/aws-answers.ts";

const CLI = fileURLToPath(new URL("../../../lib/cli/main.ts", import.meta.url));
const TASK = "arn:aws:ecs:eu-west-1:123456789012:task/cluster/0123";

it("stops the task where its terminal is closed, whose streams are gone then", async () => {
  const output = (of: StackOutput, value: string) => ({
    ...{ key: outputKey(of), value, description: outputDescription(of) },
  });
  const pipeline = "shop";
  const outputs = [
    output({ pipeline, resource: "stateTable" }, "table"),
    output({ pipeline, resource: "cluster" }, "cluster"),
    output({ pipeline, slot: 1, resource: "service" }, "service"),
  ];
  const container = {
    ...{ name: "capture", environment: [{ name: "TRIBUTARY_OPERATE", value: "true" }] },
    logConfiguration: { options: { "awslogs-group": "logs", "awslogs-stream-prefix": "capture" } },
  };
  const answers: Record<string, AwsAnswer> = {
    DescribeStacks: { result: stackXml("Shop", outputs) },
    DescribeServices: { json: { services: [{ status: "ACTIVE", taskDefinition: "t:1" }] } },
    DescribeTaskDefinition: { json: { taskDefinition: { containerDefinitions: [container] } } },
    RunTask: { json: { tasks: [{ taskArn: TASK }] } },
    DescribeTasks: { json: { tasks: [{ taskArn: TASK, lastStatus: "RUNNING" }] } },
    GetLogEvents: { json: { events: [] } },
    StopTask: { json: {} },
  };
  const asked: string[] = [];
  const server = await answerAws(({ action }) => {
    asked.push(action);
    return answers[action] ?? { error: "ResourceNotFoundException" };
  });
  const own = Object.entries(process.env).filter(([name]) => !/^(AWS_|TRIBUTARY_|PG|DATABASE)/.test(name));
  const child = spawn(process.execPath, [CLI, "teardown", "--stack", "Shop", "--remote"], {
    env: {
      ...Object.fromEntries(own),
      ...{ AWS_ENDPOINT_URL: server.url, AWS_REGION: "eu-west-1" },
      ...{ AWS_ACCESS_KEY_ID: "test", AWS_SECRET_ACCESS_KEY: "test" },
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const ended = once(child, "close");
  try {
    await eventually(() => asked.includes("DescribeTasks"), { what: "a task that runs" });
    child.stdout?.destroy();
    child.stderr?.destroy();
    child.kill("SIGHUP");
    const [code, signal] = await ended;
    expect(asked).toContain("StopTask");
    expect([code, signal]).toEqual([1, null]);
  } finally {
    child.kill("SIGKILL");
    await server.close();
  }
});
