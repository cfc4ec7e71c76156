import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { buildCapture } from "../../cdk/constructs/capture-program.ts";
import { buildSink } from "../../cdk/constructs/sink-code.ts";
import { outputDescription, outputKey, type StackOutput } from "../../lib/definition/stack-outputs.ts";
import { DONE, invoke } from "../aws/consume/consumer-bench.ts";
import { emulatedAws } from "../aws/emulated.ts";
import { emulatedS3 } from "../aws/emulated-s3.ts";
import { freshDatabase, withPostgres } from "../postgres/server.ts";
import { type AwsAnswer, type AwsServer, answerAws, stackXml } from "../unit/admin/aws-answers.ts";
import { HELD_SCHEMA, holdOrders } from "./backfill/orders-held.ts";
import { CaptureBench, Program } from "./capture-bench.ts";

const CLI = fileURLToPath(new URL("../../lib/cli/main.ts", import.meta.url));
const HELD = fileURLToPath(new URL("./backfill/orders-held.ts", import.meta.url));
const TASK = "arn:aws:ecs:eu-west-1:123456789012:task/cluster/0123";

/** What RunTask is sent for the container. */
interface Override {
  readonly command: string[];
  readonly environment: { readonly name: string; readonly value: string }[];
}

const aws = emulatedAws();
const s3 = emulatedS3();
let image: string;
beforeAll(async () => {
  image = await mkdtemp(join(tmpdir(), "tributary-image-"));
  buildCapture(image);
});
afterAll(() => rm(image, { recursive: true, force: true }));

withPostgres((server) => {
  test("a verb with --remote is the image's own program, in the capture task's environment", async () => {
    const b = await CaptureBench.create(aws(), await freshDatabase(server()));
    let task: Program | undefined;
    const account = await answerAccount(b.consumer.table, (override) => {
      const given = Object.fromEntries(override.environment.map(({ name, value }) => [name, value]));
      const [file = "", ...args] = override.command.map((word) => word.replace(/^\/app\//, `${image}/`));
      task = new Program(file, args, { ...b.environment, ...given, TRIBUTARY_OPERATE: "true" });
      return task;
    });
    const run = async (...args: string[]) => {
      const program = new Program(CLI, [...args, "--stack", "Shop", "--remote"], account.environment);
      return { code: await program.ended, text: program.lines.join("\n") };
    };
    const slots = async () => (await b.client.query("SELECT FROM pg_replication_slots")).rowCount;
    try {
      await b.client.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", [b.slot]);
      const refused = await run("teardown", "--database-url", "postgres://me:secret@db/shop");
      expect([refused.code, task]).toEqual([2, undefined]);
      expect(refused.text).toContain("--database-url: leave it out with --remote");
      expect(refused.text).not.toContain("secret");

      // What there is of the deployed image: the definition and the database, but no handlers.
      const looked = await run("doctor");
      expect(looked.text).toMatch(/^ok +database/m);
      expect(looked.text).toMatch(/unchecked .*handler .*\n +the handlers' files are not in this place/);
      expect(looked.text).not.toMatch(/problem +(?:definition|database|preflight)/);
      const planned = await run("plan", "--json");
      expect(JSON.parse(planned.text.slice(planned.text.indexOf("{")))).toMatchObject({ pipeline: "shop" });

      const shown = await run("teardown");
      expect([shown.code, shown.text]).toEqual([2, expect.stringContaining("--confirm shop")]);
      expect(shown.text).not.toMatch(/stdout: |exit code/);
      const wrong = await run("teardown", "--confirm", "another");
      expect([wrong.code, wrong.text]).toEqual([2, expect.stringContaining("write the pipeline's name")]);
      expect(await slots()).toBe(1);
      const done = await run("teardown", "--confirm", "shop");
      expect([done.code, done.text]).toEqual([0, expect.stringContaining(`slot "${b.slot}" was dropped`)]);
      expect(await slots()).toBe(0);

      // Of an older image the program would be capture's: what it is sent besides keeps it from capturing.
      const sent = account.sent.at(-1)?.environment ?? [];
      const given = Object.fromEntries(sent.map(({ name, value }) => [name, value]));
      const older = new Program(join(image, "main.mjs"), ["/app/operate.mjs", "teardown"], {
        ...b.environment,
        ...given,
      });
      expect([await older.ended, older.lines.join("\n")]).toEqual([
        2,
        expect.stringContaining("TRIBUTARY_METRICS_SECONDS"),
      ]);
      expect(await slots()).toBe(0);
    } finally {
      await account.server.close();
      await b.end();
    }
  });

  test("verify with --remote reads the sink by the consumer's own code and variables, in the task that the stack has for it", async () => {
    const b = await CaptureBench.create(aws(), await freshDatabase(server()), { entry: "not in the image" });
    const sinkUrl = await freshDatabase(server());
    const sink = new pg.Pool({ connectionString: sinkUrl });
    const code = join(image, "sink", "index.mjs");
    buildSink(HELD, code);
    await s3().overwrite("code.mjs", await readFile(code));
    const scratch = await mkdtemp(join(tmpdir(), "tributary-verify-"));
    const account = await answerAccount(
      b.consumer.table,
      ({ command, environment }) => {
        const given = Object.fromEntries(environment.map(({ name, value }) => [name, value]));
        const [file = "", ...args] = command.map((word) => word.replace(/^\/app\//, `${image}/`));
        return new Program(file, args, {
          ...b.environment,
          ...given,
          ...(s3().environment as Record<string, string>),
          TMPDIR: scratch,
          TRIBUTARY_SINK_CODE: `s3://${s3().bucket}/code.mjs`,
          // Of both sides the variables have the same names.
          TRIBUTARY_SINK_ENVIRONMENT: JSON.stringify({
            ...{ SINK_URL: sinkUrl, PGHOST: "elsewhere.invalid", DATABASE_URL: sinkUrl },
            ...{ AWS_ENDPOINT_URL_DYNAMODB: "http://127.0.0.1:9" },
          }),
        });
      },
      b.consumer.name,
    );
    const verify = async (consumer: string, ...args: string[]) => {
      const words = ["verify", "--table", "public.orders", "--consumer", consumer, ...args];
      const program = new Program(CLI, [...words, "--stack", "Shop", "--remote"], account.environment);
      return { code: await program.ended, text: program.lines.join("\n") };
    };
    try {
      await sink.query(HELD_SCHEMA);
      const handler = b.consumer.instance((consumer) => holdOrders(consumer, sink));
      const capture = b.capture();
      await capture.printed("streaming from slot");
      await b.insert(1, 20);
      await b.reached(20);
      expect(await invoke(handler, await b.records())).toEqual(DONE);

      const equal = await verify(b.consumer.name, "--timeout", "1");
      expect([equal.code, equal.text]).toEqual([0, expect.stringContaining("Equal.")]);
      expect(equal.text).toContain("20 rows at the source, 20 in the sink");
      expect(account.tasks).toMatchObject([
        {
          taskDefinition: "verify:1",
          networkConfiguration: {
            awsvpcConfiguration: { subnets: ["subnet-1"], securityGroups: ["sg-capture", "sg-sink"] },
          },
        },
      ]);
      expect(account.sent.at(-1)?.command).toEqual([
        ...[
          "/app/operate.mjs",
          "verify",
          "--table=public.orders",
          `--consumer=${b.consumer.name}`,
          "--timeout=1",
        ],
      ]);

      await sink.query("UPDATE held SET note = 'of somebody else' WHERE id = '7'");
      const consuming = consumeUntilEnded(b, handler);
      const differing = await verify(b.consumer.name, "--json");
      consuming.end();
      await consuming.ended;
      expect(differing.code).toBe(1);
      expect(JSON.parse(differing.text.slice(differing.text.indexOf("{")))).toMatchObject({
        differences: [{ kind: "different", key: { id: 7 }, columns: ["note"] }],
      });
      expect(await readdir(scratch)).toEqual([]);

      // 1 would say that rows differ.
      const none = await verify("no-sink");
      expect([none.code, none.text]).toEqual([2, expect.stringContaining("REMOTE_SINK")]);
      const unknown = await verify("order-sumary");
      expect([unknown.code, unknown.text]).toEqual([
        2,
        expect.stringContaining(`no-sink, ${b.consumer.name}`),
      ]);
      expect(account.tasks.length).toBe(2);
    } finally {
      await sink.end();
      await account.server.close();
      await b.end();
      await rm(scratch, { recursive: true, force: true });
    }
  });
});

/** Gives a consumer what comes into the stream, until it is ended. */
function consumeUntilEnded(b: CaptureBench, handler: Parameters<typeof invoke>[0]) {
  let isEnded = false;
  const ended = (async () => {
    while (!isEnded) {
      expect(await invoke(handler, await b.records())).toEqual(DONE);
      await new Promise((resolve) => setImmediate(resolve));
    }
  })();
  const end = () => {
    isEnded = true;
  };
  return { ended, end };
}

const SERVICE = {
  ...{ status: "ACTIVE", taskDefinition: "t:1" },
  networkConfiguration: { awsvpcConfiguration: { subnets: ["subnet-1"], securityGroups: ["sg-capture"] } },
};

/** An account with a stack of this state table, whose ECS runs tasks as `start` does. */
async function answerAccount(
  stateTable: string,
  start: (override: Override) => Program,
  verifiable?: string,
): Promise<{
  server: AwsServer;
  sent: Override[];
  tasks: Readonly<Record<string, unknown>>[];
  environment: Record<string, string>;
}> {
  const sent: Override[] = [];
  const tasks: Readonly<Record<string, unknown>>[] = [];
  let running: Program | undefined;
  const output = (of: StackOutput, value: string) => ({
    ...{ key: outputKey(of), value, description: outputDescription(of) },
  });
  const pipeline = "shop";
  const outputs = [
    output({ pipeline, resource: "stateTable" }, stateTable),
    output({ pipeline, resource: "cluster" }, "cluster"),
    output({ pipeline, slot: 1, resource: "service" }, "service"),
    output({ pipeline, consumer: "no-sink", resource: "function" }, "no-sink"),
    ...(verifiable ? [output({ pipeline, consumer: verifiable, resource: "verifyTask" }, "verify:1")] : []),
  ];
  const options = { "awslogs-group": "logs", "awslogs-stream-prefix": "capture" };
  const container = {
    dockerLabels: { "tributary.security-groups": "sg-sink" },
    ...{ name: "capture", logConfiguration: { logDriver: "awslogs", options } },
    environment: [{ name: "TRIBUTARY_OPERATE", value: "true" }],
  };
  const answers: Record<string, (parameters: Readonly<Record<string, unknown>>) => AwsAnswer> = {
    DescribeStacks: () => ({ result: stackXml("Shop", outputs) }),
    DescribeServices: () => ({ json: { services: [SERVICE] } }),
    DescribeTaskDefinition: () => ({ json: { taskDefinition: { containerDefinitions: [container] } } }),
    RunTask: (asked) => {
      const { overrides } = asked;
      tasks.push(asked);
      const [override] = (overrides as { containerOverrides: Override[] }).containerOverrides;
      sent.push(override as Override);
      running = start(override as Override);
      return { json: { tasks: [{ taskArn: TASK }] } };
    },
    DescribeTasks: () => {
      const lastStatus = running?.running ? "RUNNING" : "STOPPED";
      return {
        json: { tasks: [{ taskArn: TASK, lastStatus, containers: [{ name: "capture", exitCode: 0 }] }] },
      };
    },
    GetLogEvents: ({ nextToken = "0", logStreamName }) => {
      if (running === undefined || logStreamName !== "capture/capture/0123")
        return { error: "ResourceNotFoundException" };
      const lines = running.lines.slice(Number(nextToken));
      const nextForwardToken = String(Number(nextToken) + lines.length);
      return { json: { events: lines.map((message) => ({ message })), nextForwardToken } };
    },
  };
  const server = await answerAws(
    ({ action, parameters }) => answers[action]?.(parameters) ?? { error: "AccessDeniedException" },
  );
  const own = Object.entries(process.env).filter(([name]) => !/^(AWS_|TRIBUTARY_|PG|DATABASE)/.test(name));
  const environment = {
    ...(Object.fromEntries(own) as Record<string, string>),
    ...{ AWS_ENDPOINT_URL: server.url, AWS_REGION: "eu-west-1" },
    ...{ AWS_ACCESS_KEY_ID: "test", AWS_SECRET_ACCESS_KEY: "test" },
  };
  return { server, sent, tasks, environment };
}
