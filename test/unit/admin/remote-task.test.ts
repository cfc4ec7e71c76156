import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type RemoteOptions, runRemotely } from "../../../lib/admin/remote-task.ts";
import type { TributaryError } from "../../../lib/change/tributary-error.ts";
import { writeRemoteLine } from "../../../lib/definition/remote-program.ts";
import { type AwsAnswer, type AwsCall, type AwsServer, answerAws } from "./aws-answers.ts";

const RESOURCES = {
  place: "stack Shop in eu-west-1",
  captures: [
    { slot: 1, cluster: "shop-cluster", service: "shop-service" },
    { slot: 2, cluster: "shop-cluster", service: "shop-service-2" },
  ],
};
const NETWORK = {
  awsvpcConfiguration: { subnets: ["subnet-1"], securityGroups: ["sg-1"], assignPublicIp: "DISABLED" },
};
const TASK = "arn:aws:ecs:eu-west-1:123456789012:task/shop-cluster/0123abcd";
const LINES = ["stderr: tributary: looking", "stdout: The slot was dropped.", "stdout: exit code 0"];

let aws: AwsServer;
/** Answers by action, in order; the last one stays. */
let answers: Record<string, AwsAnswer[]>;
let hear: (call: AwsCall) => void;
beforeEach(async () => {
  hear = () => {};
  answers = {
    DescribeServices: [
      {
        json: {
          services: [
            {
              status: "ACTIVE",
              taskDefinition: "shop-task:7",
              networkConfiguration: NETWORK,
              platformVersion: "1.4.0",
              desiredCount: 0,
            },
          ],
        },
      },
    ],
    DescribeTaskDefinition: [taskDefinition([{ name: "TRIBUTARY_OPERATE", value: "true" }])],
    RunTask: [{ json: { tasks: [{ taskArn: TASK, lastStatus: "PROVISIONING" }], failures: [] } }],
    DescribeTasks: [task("PROVISIONING"), task("PENDING"), task("RUNNING"), stopped(0)],
    // Before the task there is no stream.
    GetLogEvents: [
      { error: "ResourceNotFoundException" },
      log(LINES.slice(0, 1)),
      log(LINES.slice(1)),
      log([]),
    ],
    StopTask: [{ json: {} }],
    GetCallerIdentity: [
      { result: "<Arn>arn:aws:iam::123456789012:user/ada</Arn><Account>123456789012</Account>" },
    ],
  };
  aws = await answerAws((call) => {
    const { action } = call;
    hear(call);
    const [next = { error: "AccessDeniedException" }, ...later] = answers[action] ?? [];
    if (later.length > 0) answers[action] = later;
    return next;
  });
  for (const name of Object.keys(process.env).filter((one) => /^AWS_/.test(one))) vi.stubEnv(name, undefined);
  vi.stubEnv("AWS_ENDPOINT_URL", aws.url);
  vi.stubEnv("AWS_REGION", "eu-west-1");
  vi.stubEnv("AWS_ACCESS_KEY_ID", "test");
  vi.stubEnv("AWS_SECRET_ACCESS_KEY", "test");
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await aws.close();
});

function taskDefinition(environment: { name: string; value: string }[]): AwsAnswer {
  const options = { "awslogs-group": "shop-logs", "awslogs-stream-prefix": "capture" };
  const container = { name: "capture", environment, logConfiguration: { logDriver: "awslogs", options } };
  return { json: { taskDefinition: { containerDefinitions: [container] } } };
}

function task(lastStatus: string, more: object = {}): AwsAnswer {
  return { json: { tasks: [{ taskArn: TASK, lastStatus, containers: [{ name: "capture" }], ...more }] } };
}

function stopped(exitCode?: number, reason?: string, stoppedReason?: string): AwsAnswer {
  return task("STOPPED", { stoppedReason, containers: [{ name: "capture", exitCode, reason }] });
}

let token = 0;
function log(messages: string[]): AwsAnswer {
  return { json: { events: messages.map((message) => ({ message })), nextForwardToken: `f/${++token}` } };
}

async function run(more: Partial<RemoteOptions> = {}) {
  const lines: string[] = [];
  const notes: string[] = [];
  const ended = runRemotely(RESOURCES, ["teardown", "--confirm=shop"], {
    signal: new AbortController().signal,
    onLine: ({ stream, text }) => lines.push(`${stream} ${text}`),
    note: (text) => notes.push(text),
    deadlines: { pollMs: 1, logMs: 100 },
    ...more,
  });
  const [code, error] = await ended.then(
    (done) => [done, undefined] as const,
    (thrown: TributaryError) => [undefined, thrown] as const,
  );
  return { code, error, lines, notes };
}

/** Gives up when AWS has been asked so, and before it answers. */
function givenUpAt(action: string): AbortSignal {
  const given = new AbortController();
  hear = (call) => void (call.action === action && given.abort());
  return given.signal;
}

function asked(action: string): AwsCall["parameters"][] {
  return aws.calls.filter((call) => call.action === action).map(({ parameters }) => parameters);
}

describe("a verb as a task", () => {
  it("is the first slot's service with another command, and is told as it goes", async () => {
    const { code, lines, notes } = await run();
    expect(asked("RunTask")).toEqual([
      {
        cluster: "shop-cluster",
        taskDefinition: "shop-task:7",
        count: 1,
        launchType: "FARGATE",
        platformVersion: "1.4.0",
        networkConfiguration: NETWORK,
        overrides: {
          containerOverrides: [
            {
              name: "capture",
              command: ["/app/operate.mjs", "teardown", "--confirm=shop"],
              environment: [{ name: "TRIBUTARY_METRICS_SECONDS", value: "operate" }],
            },
          ],
        },
        propagateTags: "TASK_DEFINITION",
        startedBy: "tributary",
        clientToken: expect.stringMatching(/^[0-9a-f-]{36}$/),
      },
    ]);
    expect(asked("DescribeServices")).toEqual([{ cluster: "shop-cluster", services: ["shop-service"] }]);
    expect(asked("GetLogEvents").at(-1)).toMatchObject({
      logGroupName: "shop-logs",
      logStreamName: "capture/capture/0123abcd",
      startFromHead: true,
      nextToken: expect.stringMatching(/^f\//),
    });
    expect(lines).toEqual(["stderr tributary: looking", "stdout The slot was dropped."]);
    expect(code).toBe(0);
    expect(notes.join("\n")).toMatch(/task 0123abcd.*deployed image.*provisioning.*pending.*running/s);
    expect(asked("StopTask")).toEqual([]);
  });

  it("ends with the verb's exit code, also where its last lines come late", async () => {
    answers.DescribeTasks = [stopped(2)];
    answers.GetLogEvents = [
      { error: "ResourceNotFoundException" },
      { error: "ResourceNotFoundException" },
      log([]),
      log(["stderr: The command line is not valid", "  and more", "stdout: exit code 2"]),
    ];
    const { code, lines } = await run({ deadlines: { pollMs: 1, logMs: 10_000 } });
    expect([code, lines]).toEqual([2, ["stderr The command line is not valid", "stderr   and more"]]);
  });

  it("is another task definition of the stack in the service's network, with the security groups that this one needs", async () => {
    const options = { "awslogs-group": "shop-logs", "awslogs-stream-prefix": "verify-orders" };
    const containers = [
      { name: "sidecar", environment: [] },
      {
        ...{ name: "verify", environment: [{ name: "TRIBUTARY_OPERATE", value: "true" }] },
        logConfiguration: { logDriver: "awslogs", options },
        dockerLabels: { "tributary.security-groups": "sg-2,sg-1" },
      },
    ];
    answers.DescribeTaskDefinition = [{ json: { taskDefinition: { containerDefinitions: containers } } }];
    const { code } = await run({ taskDefinition: "verify-orders:3" });
    expect(code).toBe(0);
    expect(asked("DescribeTaskDefinition")).toEqual([{ taskDefinition: "verify-orders:3" }]);
    expect(asked("RunTask")).toMatchObject([
      {
        taskDefinition: "verify-orders:3",
        networkConfiguration: {
          awsvpcConfiguration: {
            subnets: ["subnet-1"],
            securityGroups: ["sg-1", "sg-2"],
            assignPublicIp: "DISABLED",
          },
        },
        overrides: { containerOverrides: [{ name: "verify" }] },
      },
    ]);
    expect(asked("GetLogEvents").at(-1)).toMatchObject({ logStreamName: "verify-orders/verify/0123abcd" });
  });

  it("uses the capacity of the service where it has a strategy", async () => {
    const strategy = [{ capacityProvider: "FARGATE_SPOT", weight: 1, base: 0 }];
    const services = [{ taskDefinition: "t:1", capacityProviderStrategy: strategy }];
    answers.DescribeServices = [{ json: { services } }];
    expect((await run()).code).toBe(0);
    const [sent] = asked("RunTask");
    expect(sent).toMatchObject({ capacityProviderStrategy: strategy });
    expect(sent).not.toHaveProperty("launchType");
  });
});

describe("the output of a verb", () => {
  it("has its long lines whole, which a container's log would split", async () => {
    const long = `{"rows":"${"ab\u00e9\u{1f600}".repeat(9_000)}"}`;
    const pieces = writeRemoteLine("stdout", long).split("\n");
    expect(Math.max(...pieces.map((piece) => Buffer.byteLength(piece)))).toBeLessThan(16 * 1024);
    answers.GetLogEvents = [
      { error: "ResourceNotFoundException" },
      log(pieces.slice(0, 3)),
      log([...pieces.slice(3), ...LINES.slice(1)]),
    ];
    let text = "";
    const { code } = await run({
      onLine: (line) => {
        text += line.isEnd ? `${line.text}\n` : line.text;
      },
    });
    expect(code).toBe(0);
    expect(text.split("\n")[0] === long, "the line is the same").toBe(true);
    expect(text.split("\n")[1]).toBe("The slot was dropped.");
  });

  it("is told to its end, however many pages come once the task has ended", async () => {
    answers.DescribeTasks = [stopped(3)];
    const pages = Array.from({ length: 30 }, (_, i) => log([`stdout: page ${i}`]));
    answers.GetLogEvents = [{ error: "ResourceNotFoundException" }, ...pages, log(["stdout: exit code 3"])];
    const { code, lines } = await run({ deadlines: { pollMs: 50, logMs: 1_000 } });
    expect([code, lines.length]).toEqual([3, 30]);
  });
});

describe("nothing is started", () => {
  const refused = async () => {
    const { error } = await run();
    expect(asked("RunTask")).toEqual([]);
    return error;
  };

  it("from a task definition of an older version, which would capture", async () => {
    answers.DescribeTaskDefinition = [taskDefinition([])];
    expect(await refused()).toMatchObject({
      code: "REMOTE_IMAGE",
      remedy: expect.stringContaining("npx cdk deploy"),
    });
  });

  it("where the service is gone, or the log may not be read", async () => {
    answers.DescribeServices = [{ json: { services: [{ status: "INACTIVE", taskDefinition: "t:1" }] } }];
    expect(await refused()).toMatchObject({ code: "REMOTE_IMAGE" });
    answers.DescribeServices = [{ json: { services: [{ taskDefinition: "t:1" }] } }];
    answers.GetLogEvents = [{ error: "AccessDeniedException" }];
    expect(await refused()).toMatchObject({
      code: "AWS_RIGHT_MISSING",
      message: expect.stringContaining("user/ada may not call logs:GetLogEvents"),
    });
  });

  it("and the right that lacks is named, also where it is not the call's own", async () => {
    const message =
      "User: arn:aws:iam::123456789012:user/ada is not authorized to perform: iam:PassRole on resource: r";
    answers.RunTask = [{ error: "ClientException", message }];
    expect((await run()).error).toMatchObject({
      code: "AWS_RIGHT_MISSING",
      message: expect.stringContaining("may not call iam:PassRole"),
    });
    answers.RunTask = [{ error: "AccessDeniedException" }];
    expect((await run()).error?.message).toContain("may not call ecs:RunTask");
  });

  it.each([
    [["RESOURCE:ENI"], /Fargate had no room/],
    [[], /stopped tasks/],
  ])("%s: ECS's reason is told", async (reasons, remedy) => {
    answers.RunTask = [{ json: { tasks: [], failures: reasons.map((reason) => ({ reason })) } }];
    const { error } = await run();
    expect(error).toMatchObject({ code: "REMOTE_TASK", remedy: expect.stringMatching(remedy) });
    expect(error?.message).toContain(reasons[0] ?? "does not say why");
  });
});

describe("a task that does not run", () => {
  it.each([
    ["CannotPullContainerError: pull image manifest has been retried", /ecr\.api/],
    ["ResourceInitializationError: unable to pull secrets or registry auth", /Secrets Manager/],
    ["Task stopped by (user)", /stopped tasks/],
  ])("%s", async (reason, remedy) => {
    answers.DescribeTasks = [task("PENDING"), stopped(undefined, undefined, reason)];
    const { error } = await run();
    expect(error).toMatchObject({ code: "REMOTE_TASK", remedy: expect.stringMatching(remedy) });
    expect(error?.message).toContain(reason);
  });

  it("and one that ended without a word is no success", async () => {
    answers.DescribeTasks = [stopped(0)];
    const line = ['{"level":"ERROR","code":"CONFIGURATION"}'];
    answers.GetLogEvents = [{ error: "ResourceNotFoundException" }, log(line), log([])];
    const { error, lines } = await run();
    expect(error).toMatchObject({ code: "REMOTE_TASK", message: expect.stringContaining("exit code 0") });
    expect(lines[0]).toContain("CONFIGURATION");
  });

  it("is stopped where it does not start in time, or is given up", async () => {
    answers.DescribeTasks = [task("PROVISIONING")];
    const late = await run({ deadlines: { pollMs: 1, startMs: 20 } });
    expect(late.error).toMatchObject({
      code: "REMOTE_STOPPED",
      message: expect.stringContaining("did not start within"),
    });
    answers.DescribeTasks = [task("RUNNING")];
    const given = new AbortController();
    answers.GetLogEvents = [{ error: "ResourceNotFoundException" }, log(["stdout: working"]), log([])];
    const stopping = await run({ signal: given.signal, onLine: () => given.abort() });
    expect(stopping.error).toMatchObject({
      code: "REMOTE_STOPPED",
      message: expect.stringContaining("given up"),
    });
    expect(asked("StopTask").map((sent) => [sent.cluster, sent.task])).toEqual([
      ["shop-cluster", TASK],
      ["shop-cluster", TASK],
    ]);
  });

  it.each(["DescribeServices", "DescribeTaskDefinition"])(
    "is not started where it is given up at %s",
    async (action) => {
      const { error } = await run({ signal: givenUpAt(action) });
      expect(error).toMatchObject({
        code: "REMOTE_STOPPED",
        message: expect.stringContaining("no task was started"),
      });
      expect(asked("RunTask")).toEqual([]);
    },
  );

  it("is stopped where it is given up while ECS is asked to start it", async () => {
    const { error } = await run({ signal: givenUpAt("RunTask") });
    expect(error).toMatchObject({ code: "REMOTE_STOPPED", message: expect.stringContaining("0123abcd") });
    expect(asked("StopTask")).toMatchObject([{ cluster: "shop-cluster", task: TASK }]);
  });

  it("may run where ECS did not answer the call that starts it: that is said, and one start is asked for however often", async () => {
    answers.RunTask = ["no answer"];
    const { error } = await run();
    expect(error).toMatchObject({
      code: "REMOTE_TASK",
      message: expect.stringMatching(/may run in the cluster shop-cluster, started by tributary/),
    });
    expect(new Set(asked("RunTask").map(({ clientToken }) => clientToken)).size).toBe(1);
  });

  it("is not stopped because it cannot be seen from here", async () => {
    answers.DescribeTasks = [task("RUNNING"), { error: "ExpiredTokenException" }];
    const { error, notes } = await run();
    expect(error?.code).toBe("AWS_CREDENTIALS");
    expect(asked("StopTask")).toEqual([]);
    expect(notes.at(-1)).toContain("goes on: its log is capture/capture/0123abcd of the group shop-logs");
  });
});
