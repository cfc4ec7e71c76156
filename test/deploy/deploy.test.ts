import { randomBytes } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { GetItemCommand, type GetItemCommandOutput } from "@aws-sdk/client-dynamodb";
import { PutBucketTaggingCommand } from "@aws-sdk/client-s3";
import { CreateSecretCommand } from "@aws-sdk/client-secrets-manager";
import { ReceiveMessageCommand } from "@aws-sdk/client-sqs";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import {
  dynamodbClient,
  kinesisClient,
  lambdaClient,
  s3Client,
  secretsManagerClient,
  sqsClient,
} from "../../lib/aws/clients.ts";
import { invokeRedrive } from "../../lib/consume/dead-letter/redrive-function.ts";
import type { RedriveRequest } from "../../lib/consume/dead-letter/redrive-request.ts";
import { CAPTURE_METRIC, CONSUMER_METRIC } from "../../lib/telemetry/metrics.ts";
import { matchMetrics, templateOf } from "../cdk/matched-metrics.ts";
import { eventually } from "../eventually.ts";
import { emf } from "../unit/observe/emf-line.ts";
import { type CaptureProgram, startCaptureProgram } from "./capture-program.ts";
import { cdk } from "./cdk.ts";
import { type Cloud, cloudEnvironment, cloudKinds, NoCloudError } from "./cloud.ts";
import { tributary } from "./command.ts";
import { captureContainers, type DeployedFunction, functionLines, listFunctions } from "./deployed.ts";
import { copyExampleApp, type ExampleApp } from "./example-app.ts";
import { imageContext } from "./image-context.ts";
import { inventory } from "./inventory.ts";
import { type SourceDatabase, startSourceDatabase } from "./source-database.ts";

/*
 * The example app, deployed for real on an emulated AWS: what `cdk deploy` makes runs, together. Never a proof of what
 * happens on failure: the emulators' event source mappings do not retry as Lambda does.
 */

const VERBOSE = process.env.TRIBUTARY_TEST_VERBOSE !== undefined;
const ASSEMBLY = "cdk.out";
const LAST = "destroy leaves nothing";

describe.each(cloudKinds())("on $name", (kind) => {
  const stack = `shop-${randomBytes(3).toString("hex")}`;
  let cloud: Cloud;
  let missing: string | undefined;
  let failed = false;
  let app: ExampleApp;
  let database: SourceDatabase;
  let clients: Awaited<ReturnType<typeof connect>>;
  let capture: CaptureProgram | undefined;
  /** All that capture programs printed. */
  const captured: string[] = [];
  const cleanups: (() => Promise<unknown>)[] = [];

  beforeAll(async () => {
    try {
      cloud = await kind.start();
    } catch (error) {
      if (!(error instanceof NoCloudError)) throw error;
      missing = `SKIPPED, no ${kind.name}: ${error.message}`;
      process.stderr.write(`${missing}\n`);
      return;
    }
    cleanups.push(cloud.stop);
    clients = await connect(cloud);
    cleanups.unshift(async () => Object.values(clients).map((client) => client.destroy()));
    database = await startSourceDatabase();
    cleanups.unshift(database.stop);
    app = await copyExampleApp();
    cleanups.unshift(app.remove, async () => capture?.stop());
  });
  afterAll(async () => {
    for (const cleanup of cleanups) await cleanup();
  });
  beforeEach((context) => {
    if (missing) context.skip(missing);
    // Each step stands on those before it; the last one clears up.
    if (failed && context.task.name !== LAST) context.skip("an earlier step failed");
    context.onTestFailed(() => {
      failed = true;
      process.stderr.write(`${capture?.printed() ?? ""}\n${cloud.printed()}\n`);
    });
  });

  test("a first deploy that fails is rolled back, although it would keep its data", async () => {
    await runCdk(["bootstrap", "aws://000000000000/us-east-1"], tmpdir());
    expect(await inventory(cloud, stack, clients)).toEqual(NOTHING);
    await app.edit("cdk/app.ts", ...APP_IMPORTS);
    await app.edit("cdk/app.ts", ...PLAIN_ALARMS);
    await writeFile(join(app.directory, "cdk", "second.ts"), SECOND_PIPELINE);
    await app.edit("cdk/shop-stack.ts", ...ADD_SECOND);
    await app.edit("cdk/shop-stack.ts", ...IMPORTS);
    await app.edit("cdk/shop-stack.ts", ...ADD_FAILURE);
    const kept = { deleteData: "false", databaseSecretArn: NO_SECRET };
    await expect(deploy(kept)).rejects.toThrow(NO_SUCH_TABLE);
    expect(await inventory(cloud, stack, clients)).toEqual(NOTHING);
    await app.edit("cdk/shop-stack.ts", ADD_FAILURE[1], ADD_FAILURE[0]);
    settings.length = 0;
  });

  test("it can be deployed again, with two pipelines", async () => {
    const password = randomBytes(12).toString("hex");
    await database.createRole("tributary", password);
    const secret = await clients.secrets.send(
      new CreateSecretCommand({
        Name: `database-of-${stack}`,
        SecretString: JSON.stringify({ username: "tributary", password }),
      }),
    );
    await deploy({ databaseSecretArn: secret.ARN as string });
    expect(await inventory(cloud, stack, clients)).toMatchObject({
      streams: [expect.any(String), expect.any(String)],
      services: [expect.any(String), expect.any(String)],
      tables: expect.arrayContaining([
        expect.stringContaining("State"),
        expect.stringContaining("Customers"),
      ]),
    });
  });

  test("changes reach the deployed functions and take effect", async () => {
    capture = await startCapture("shop", 1);
    await soon("the capture program to read the log", async () => {
      const { rowCount } = await database.client.query(
        "SELECT FROM pg_stat_replication WHERE state = 'streaming' AND usename = 'tributary'",
      );
      return rowCount === 1 || undefined;
    });
    await database.client.query(
      "INSERT INTO customers (id, email, name, credit) VALUES (1, 'ada@example.org', 'Ada', 12345678.90), (2, 'bob@example.org', 'Bob', 0)",
    );
    await database.client.query("UPDATE customers SET tier = 'gold' WHERE id = 1");
    await database.client.query("DELETE FROM customers WHERE id = 2");
    expect(await customer("1", (item) => item.tier?.S === "gold")).toMatchObject({
      name: { S: "Ada" },
      credit: { S: "12345678.90" },
      position: { S: expect.stringMatching(/^00000001/) },
    });
    expect(await customer("2", (item) => item.deleted !== undefined)).not.toHaveProperty("name");
    expect(await capture.checkHealth()).toBe(0);
  });

  test("every consumer has what its definition and its sink need", async () => {
    const { LETTER_QUEUE_URL, TRIBUTARY_DEAD_LETTER_QUEUE_URL } = await environmentOf("notifications");
    await database.client.query("INSERT INTO orders (id, customer_id, total) VALUES (7, 1, 1), (8, 1, 1)");
    await database.client.query(
      "INSERT INTO cancellations VALUES (7, 'changed-mind'), (8, 'no such reason')",
    );
    expect(await message(LETTER_QUEUE_URL)).toMatchObject({ orderId: "7" });
    expect(await message(TRIBUTARY_DEAD_LETTER_QUEUE_URL)).toMatchObject({
      consumer: "notifications",
      topic: "shop.public.cancellations",
      payload: { op: "c", after: { order_id: "8" } },
    });
  });

  test("an operator's verbs need the stack's name and nothing else", async () => {
    const run = (...args: string[]) =>
      tributary([...args, "--stack", stack], { directory: app.directory, cloud });
    const consumer = ["--consumer", "notifications"];
    const partitions = await soon("the parked change in the status", async () => {
      const { stdout, stderr, code } = await run("consumer", "status", ...consumer, "--json");
      expect(stderr).toContain(`speaking to pipeline shop of stack ${stack} in us-east-1`);
      // Something is parked.
      return code === 1 ? (JSON.parse(stdout.split("\n")[0] as string) as unknown) : undefined;
    });
    expect(partitions).toMatchObject({
      consumer: "notifications",
      topic: "shop.public.cancellations",
      parked: 1,
    });
    const status = await run("capture", "status", "--json");
    expect([status.code, JSON.parse(status.stdout)]).toEqual([0, expect.objectContaining({ holds: [] })]);
    const open = await run("redrive", ...consumer, "--dry-run", "--json");
    expect([open.code, JSON.parse(open.stdout)]).toEqual([0, expect.objectContaining({ open: 1 })]);
    const unknown = await tributary(["capture", "status", "--stack", `${stack}x`], {
      directory: app.directory,
      cloud,
    });
    expect([unknown.code, unknown.stdout]).toEqual([1, ""]);
    expect(unknown.stderr).toMatch(/there is no stack.*in account 000000000000, region us-east-1/);
    expect(unknown.stderr).toContain(`there is ${stack}`);
  });

  test("status, dead letters and a pause, by the stack's name", async () => {
    const run = (...args: string[]) =>
      tributary([...args, "--stack", stack], { directory: app.directory, cloud });
    const letters = await run("dlq", "list", "--consumer", "notifications", "--json");
    expect(letters.stderr).toContain(`speaking to pipeline shop of stack ${stack}`);
    expect([letters.code, JSON.parse(letters.stdout.split("\n")[0] as string)]).toEqual([
      1,
      expect.objectContaining({ of: "consumer", topic: "shop.public.cancellations" }),
    ]);
    const view = ["--consumer", "customer-view"];
    const paused = await run("consumer", "pause", ...view, "--no-wait", "--reason", "a new sink", "--json");
    expect([paused.code, JSON.parse(paused.stdout)]).toEqual([
      0,
      expect.objectContaining({ consumer: "customer-view", reason: "a new sink" }),
    ]);
    const status = await run("status", "--json");
    const { captures, consumers } = JSON.parse(status.stdout) as {
      captures: object[];
      consumers: { name: string }[];
    };
    expect(captures).toEqual([expect.objectContaining({ slot: 1, state: "RUNNING" })]);
    expect(consumers.find(({ name }) => name === "customer-view")).toMatchObject({
      paused: { reason: "a new sink" },
    });
    await database.client.query("UPDATE customers SET tier = 'silver' WHERE id = 1");
    await soon("the pause in capture's metrics", async () => printedMetric("PauseRetentionUsed"));
    const resumed = await run("consumer", "resume", ...view, "--json");
    expect([resumed.code, JSON.parse(resumed.stdout)]).toEqual([
      0,
      expect.objectContaining({ consumer: "customer-view" }),
    ]);
    expect(await customer("1", (item) => item.tier?.S === "silver")).toBeDefined();
  });

  test("a backfill by the stack's name", async () => {
    const run = (...args: string[]) =>
      tributary([...args, "--stack", stack], { directory: app.directory, cloud });
    const started = await run("backfill", "start", "--table", "public.customers");
    expect(started.code, started.stderr).toBe(0);
    await soon("the backfill in capture's metrics", async () => printedMetric("BackfillPercent"));
  });

  test("two pipelines of a stack stand apart", async () => {
    const second = await startCapture("second", 1);
    cleanups.unshift(() => second.stop());
    const printed = (text: string) =>
      Promise.race([
        soon(
          `${text} in the log of the second pipeline's consumer`,
          async () => (await functionLines(cloud, stack)).some((line) => line.includes(text)) || undefined,
        ),
        second.failed,
      ]);
    await eventually(
      async () => {
        const { rowCount } = await database.client.query(
          "SELECT FROM pg_replication_slots WHERE slot_name = 'tributary_second' AND active",
        );
        return rowCount === 1;
      },
      { what: "the second pipeline's slot", deadlineMs: 60_000 },
    );
    await database.client.query("UPDATE customers SET tier = 'bronze' WHERE id = 1");
    await printed('"public.customers update":1');
    await customer("1", (item) => item.tier?.S === "bronze");
    await soon("the second pipeline's report", async () => {
      const { stdout, stderr } = await tributary(
        ["status", "--stack", stack, "--pipeline", "cdk/second.ts", "--json"],
        { directory: app.directory, cloud },
      );
      expect(stderr).toContain(`speaking to pipeline second of stack ${stack}`);
      const status = JSON.parse(stdout) as { captures: { state: string }[]; consumers: { name: string }[] };
      expect(status.consumers.map(({ name }) => name)).toEqual(["print-changes"]);
      return (status.captures.length === 1 && status.captures[0]?.state === "RUNNING") || undefined;
    });
    expect(await second.stop()).toBe(0);
  });

  test("capture pauses and goes on by the stack's name", async () => {
    const run = (...args: string[]) =>
      tributary([...args, "--stack", stack], { directory: app.directory, cloud });
    const paused = await run("capture", "pause", "--by", "ada", "--json");
    expect([paused.code, JSON.parse(paused.stdout)]).toEqual([
      0,
      expect.objectContaining({ by: "ada", tasks: [expect.objectContaining({ slot: 1, state: "PAUSED" })] }),
    ]);
    await database.client.query("UPDATE customers SET tier = 'platinum' WHERE id = 1");
    const status = JSON.parse((await run("status", "--json")).stdout) as { captures: object[] };
    expect(status.captures).toEqual([expect.objectContaining({ slot: 1, state: "PAUSED" })]);
    expect(await customer("1", () => true)).toMatchObject({ tier: { S: "bronze" } });
    const resumed = await run("capture", "resume", "--json");
    expect([resumed.code, resumed.stderr]).toEqual([0, expect.stringContaining("pipeline shop")]);
    await customer("1", (item) => item.tier?.S === "platinum");
  });

  test("the redrive function that is deployed knows what is parked, and tries it again", async () => {
    const redrive = await described("redrive of notifications of shop");
    const invoke = (request: Partial<RedriveRequest>) =>
      invokeRedrive(clients.lambda, redrive.FunctionName, { tributary: "redrive", ...request });
    expect(await invoke({ dryRun: true })).toMatchObject({
      consumer: "notifications",
      ...{ redriven: 0, open: 1, more: false },
      letters: [{ topic: "shop.public.cancellations", table: "public.cancellations", outcome: "open" }],
    });
    // Its reason is as wrong as before; given up by hand, the key is free.
    expect(await invoke({})).toMatchObject({ redriven: 0, failed: 1 });
    expect(await invoke({ key: "8", discard: true })).toMatchObject({ discarded: 1, done: 1 });
    expect(await invoke({ dryRun: true })).toMatchObject({ open: 0, letters: [] });
  });

  test("a changed handler is there after the next deploy", async () => {
    const before = await functionOf("customer-view");
    await app.edit(
      "functions/customer-view.ts",
      "return { position: { S: event.position },",
      'return { deploy: { S: "second" }, position: { S: event.position },',
    );
    // Its task is run below.
    await app.edit("cdk/pipeline.ts", "source: postgres({", "source: postgres({\n    slots: 2,");
    await deploy();
    expect((await functionOf("customer-view")).CodeSha256).not.toBe(before.CodeSha256);
    await database.client.query(
      "INSERT INTO customers (id, email, name) VALUES (3, 'cyd@example.org', 'Cyd')",
    );
    expect(await customer("3", (item) => item.name !== undefined)).toMatchObject({ deploy: { S: "second" } });
    // What the first one wrote stays as it was.
    expect(await customer("1", () => true)).not.toHaveProperty("deploy");
  });

  test("consumers and redrive print their metrics as CloudWatch takes them from their logs", async () => {
    const measured = await soon("the lines of metrics", async () => {
      const lines = (await functionLines(cloud, stack)).filter((line) => line.startsWith('{"tributary":'));
      const found = lines.map((line) => emf(line.trim()));
      return found.some(({ kind }) => kind === "redrive") ? found : undefined;
    });
    const of = (consumer: string) =>
      new Set(
        measured
          .filter(({ dimensions }) => dimensions.pipeline === "shop" && dimensions.consumer === consumer)
          .flatMap(({ values }) => Object.keys(values)),
      );
    expect([...of("customer-view")]).toEqual(
      expect.arrayContaining(["Applied", "CommitToEffectMilliseconds"]),
    );
    expect([...of("notifications")]).toEqual(
      expect.arrayContaining(["Applied", "Retried", "Parked", "DeadLettered", "Redriven", "Discarded"]),
    );
  });

  test("the capture program ends as ECS asks it to, and has printed its metrics", async () => {
    expect(await capture?.stop()).toBe(0);
    const lines = (capture?.printed() ?? "").split("\n").filter((line) => line.startsWith('{"tributary":'));
    const measured = lines.map(emf);
    const of = (wanted: string) => measured.filter(({ kind }) => kind === wanted);
    expect([...new Set(of("capture").flatMap(({ values }) => Object.keys(values)))]).toEqual(
      expect.arrayContaining([
        ...[
          "ReplicationLagBytes",
          "ReplicationLagMilliseconds",
          "SlotActive",
          "WalHeldBytes",
          "WalBudgetLeft",
        ],
        ...["Changes", "Bytes", "Retries", "Throttles", "Oversize", "Reconnects"],
      ]),
    );
    const table = of("capture-table").find(({ dimensions }) => dimensions.table === "public.customers");
    expect(table?.values).toMatchObject({ TableChanges: expect.anything(), TableBytes: expect.anything() });
  });

  test("a second slot's service takes its tables over, and both go on", async () => {
    await database.giveTables("tributary");
    capture = await startCapture("shop", 1);
    const second = await startCapture("shop", 2);
    cleanups.unshift(() => second.stop());
    // The first one then ends by itself, and ECS starts it anew.
    await expect(Promise.race([capture.failed, second.failed])).rejects.toThrow("moved from");
    const held = async () => {
      const { rows } = await database.client.query<{ held: string }>(
        "SELECT pubname || ' ' || tablename AS held FROM pg_publication_tables WHERE pubname <> 'tributary_second' ORDER BY 1",
      );
      return rows.map((row) => row.held).join(", ");
    };
    // Table by table: it ended at the first one.
    const [first, other] = ["tributary_shop", "tributary_shop_slot2"];
    const shares = `${first} customers, ${first} orders, ${other} cancellations, ${other} order_items`;
    await eventually(async () => (await held()) === shares, {
      what: "each slot's tables",
      deadlineMs: 60_000,
    });
    capture = await startCapture("shop", 1);
    const { LETTER_QUEUE_URL } = await environmentOf("notifications");
    await database.client.query("INSERT INTO orders (id, customer_id, total) VALUES (9, 1, 1)");
    await database.client.query("INSERT INTO cancellations VALUES (9, 'changed-mind')");
    await database.client.query(
      "INSERT INTO customers (id, email, name) VALUES (4, 'dan@example.org', 'Dan')",
    );
    await soon("the letter of order 9", async () => {
      const letter = (await message(LETTER_QUEUE_URL)) as { readonly orderId: string };
      return letter.orderId === "9" || undefined;
    });
    await customer("4", (item) => item.name !== undefined);
    expect([await capture.stop(), await second.stop()]).toEqual([0, 0]);
  });

  test("alarms and dashboard ask for what the programs print, and for nothing else", async () => {
    const template = templateOf(
      await readFile(join(app.directory, ASSEMBLY, `${stack}.template.json`), "utf8"),
    );
    const lines = [...captured, ...(await functionLines(cloud, stack))];
    const { hidden, silent } = matchMetrics(template, lines, "shop");
    expect(hidden).toEqual([]);
    expect(silent.filter((name) => !ONLY_BY_FAULTS.includes(name))).toEqual([]);
  });

  test(LAST, async () => {
    // CDK's function empties buckets that have its tag; MiniStack makes buckets without their tags.
    for (const Bucket of (await inventory(cloud, stack, clients)).buckets ?? []) {
      const TagSet = [{ Key: "aws-cdk:auto-delete-objects", Value: "true" }];
      await clients.s3.send(new PutBucketTaggingCommand({ Bucket, Tagging: { TagSet } }));
    }
    // What was deployed, without another synth.
    await runCdk(["destroy", "--force", "--app", ASSEMBLY]);
    const left = await inventory(cloud, stack, clients);
    // Lambda makes it for CDK's function that empties buckets, and nobody removes it.
    const logGroups = left.logGroups?.filter((name) => !name.includes("CustomS3AutoDeleteObjects"));
    expect({ ...left, logGroups }).toEqual(NOTHING);
  });

  /** The program of a pipeline's service for a slot. */
  async function startCapture(pipeline: "shop" | "second", slot: number): Promise<CaptureProgram> {
    const containers = await captureContainers(cloud, stack);
    const container = containers.find(({ environment }) => {
      const value = (wanted: string) => environment.find(({ name }) => name === wanted)?.value;
      const isSecond = value("TRIBUTARY_STATE_TABLE")?.includes("Second");
      return isSecond === (pipeline === "second") && (value("TRIBUTARY_SLOT") ?? "1") === String(slot);
    });
    if (!container) throw new Error(`no service is that of slot ${slot} of ${pipeline}`);
    return startCaptureProgram({
      context: await imageContext(join(app.directory, ASSEMBLY), stack, pipeline),
      container,
      cloud,
      trusted: database.certificateAuthorityFile,
      onLine: (line) => void captured.push(line),
    });
  }

  /** Context of the app; what `deploy` adds stays. */
  const settings: string[] = [];

  async function deploy(more: Record<string, string> = {}): Promise<void> {
    if (settings.length === 0) {
      const values = {
        stackName: stack,
        databaseHost: database.host,
        databasePort: String(database.port),
        databaseName: "postgres",
        // MiniStack has no interface endpoints.
        endpoints: "existing",
        deleteData: "true",
        ...more,
      };
      settings.push(...Object.entries(values).flatMap(([name, value]) => ["-c", `${name}=${value}`]));
    }
    await runCdk(["deploy", "--require-approval", "never", "--output", ASSEMBLY, ...settings]);
  }

  function runCdk(args: readonly string[], directory = app.directory): Promise<string> {
    const onLine = (line: string) => {
      if (VERBOSE) process.stdout.write(`${line}\n`);
    };
    return cdk(args, { directory, cloud, onLine });
  }

  function functionOf(consumer: string): Promise<DeployedFunction> {
    return described(`consumer ${consumer} of shop`);
  }

  async function described(as: string): Promise<DeployedFunction> {
    const functions = await listFunctions(cloud, stack);
    const found = functions.find(({ Description }) => Description === `Tributary: ${as}`);
    if (!found) throw new Error(`no ${as} among ${JSON.stringify(functions)}`);
    return found;
  }

  async function environmentOf(consumer: string): Promise<Readonly<Record<string, string>>> {
    return (await functionOf(consumer)).Environment.Variables;
  }

  /** The item of a customer, once it is as it should be. */
  async function customer(id: string, condition: (item: Item) => boolean): Promise<Item> {
    const { CUSTOMER_TABLE: TableName } = await environmentOf("customer-view");
    return soon(`the item of customer ${id}`, async () => {
      const { Item } = await clients.dynamodb.send(new GetItemCommand({ TableName, Key: { id: { S: id } } }));
      return Item && condition(Item) ? Item : undefined;
    });
  }

  /** The first message of a queue. */
  async function message(QueueUrl: string | undefined): Promise<unknown> {
    return soon(`a message in ${QueueUrl}`, async () => {
      const { Messages } = await clients.sqs.send(
        new ReceiveMessageCommand({ QueueUrl, WaitTimeSeconds: 1 }),
      );
      const body = Messages?.[0]?.Body;
      return body === undefined ? undefined : (JSON.parse(body) as unknown);
    });
  }

  /** Whether a capture program has printed a metric; undefined if not. */
  function printedMetric(name: string): true | undefined {
    return captured.some((line) => line.includes('"_aws"') && line.includes(`"${name}"`)) || undefined;
  }

  /** Waits for an effect, unless the capture program fails before. */
  function soon<T>(what: string, condition: () => Promise<T | undefined>) {
    const effect = eventually(condition, { what, deadlineMs: 60_000 });
    return capture ? Promise.race([effect, capture.failed]) : effect;
  }
});

/** Metrics that nothing in this run gives a reason to print. Each has tests of the fault that does, and of its line: test/unit/observe. */
const ONLY_BY_FAULTS: readonly string[] = [
  // A batch that comes again, and one of a writer that another has replaced.
  ...[CONSUMER_METRIC.duplicates, CONSUMER_METRIC.failedPartitions],
  ...[CONSUMER_METRIC.staleWriter, CONSUMER_METRIC.superseded],
  // Holds, gaps, and changes behind one that is parked.
  ...[CONSUMER_METRIC.gaps, CONSUMER_METRIC.held, CONSUMER_METRIC.heldPartitions, CONSUMER_METRIC.heldBytes],
  ...[CONSUMER_METRIC.holdFull, CONSUMER_METRIC.parkedBehind, CONSUMER_METRIC.parkingFull],
  // Every change of these topics has a handler.
  CONSUMER_METRIC.unhandled,
  // One server, no transaction that is open for long, no row that cannot be read at once, and WAL that is not near its bound.
  ...[CAPTURE_METRIC.leftoverSlots, CAPTURE_METRIC.oldestTransactionSeconds],
  ...[CAPTURE_METRIC.rowsAsked, CAPTURE_METRIC.walLossSeconds],
].map(({ name }) => name);

/** MiniStack has neither composite alarms nor alarms on metric math: plain ones that never ring stand in for them. */
const PLAIN_ALARMS = [
  "const app = new App();\n",
  `const app = new App();
Aspects.of(app).add({
  visit(node) {
    if (!CfnResource.isCfnResource(node)) return;
    const isComposite = node.cfnResourceType === "AWS::CloudWatch::CompositeAlarm";
    if (!isComposite && !(node.cfnResourceType === "AWS::CloudWatch::Alarm" && "metrics" in node && node.metrics)) return;
    node.addOverride("Type", "AWS::CloudWatch::Alarm");
    for (const name of ["AlarmRule", "ActionsSuppressor", "ActionsSuppressorExtensionPeriod", "ActionsSuppressorWaitPeriod", "Metrics"])
      node.addPropertyDeletionOverride(name);
    const metric = { Namespace: "None", MetricName: "None", Statistic: "Sum", Period: 60, EvaluationPeriods: 1 };
    const never = { ...metric, Threshold: 1, ComparisonOperator: "GreaterThanThreshold" };
    for (const [name, value] of Object.entries(never)) node.addPropertyOverride(name, value);
  },
});
`,
] as const;
const APP_IMPORT = 'import { App, Validations } from "aws-cdk-lib";\n';
const APP_IMPORTS = [
  APP_IMPORT,
  'import { App, Aspects, CfnResource, Validations } from "aws-cdk-lib";\n',
] as const;
/** Another pipeline of the same database, in the same stack. */
const SECOND_PIPELINE = `
import { definePipeline, postgres } from "../lib/definition/pipeline.ts";

export default definePipeline({
  name: "second",
  source: postgres({ tables: ["public.customers"] }),
  stream: { mode: "on-demand" },
  consumers: [{ name: "print-changes", entry: "functions/print-changes.ts", topics: ["*"] }],
});
`;
/** Edits of the example's stack: what they replace, and by what. */
const LAST_LINES = `      consumers: this.#sinks(settings, removalPolicy),
      removalPolicy,
    });
`;
const ADD_SECOND = [
  LAST_LINES,
  `${LAST_LINES}
    new CdcPipeline(this, "Second", {
      definition: second,
      vpc,
      ...(endpoints ? { endpoints } : {}),
      database: { host: settings.databaseHost ?? "", port: settings.databasePort },
      databaseName: settings.databaseName,
      ...(secret ? { secret } : {}),
      removalPolicy,
    });
    // (what fails)
`,
] as const;
const FIRST_IMPORT = 'import * as sqs from "aws-cdk-lib/aws-sqs";\n';
const IMPORTS = [
  FIRST_IMPORT,
  `${FIRST_IMPORT}import * as customResources from "aws-cdk-lib/custom-resources";\nimport second from "./second.ts";\n`,
] as const;
const NO_SUCH_TABLE = "no-such-table";
/** The last thing but the mark: all else is there when it fails. */
const ADD_FAILURE = [
  "    // (what fails)\n",
  `    const failure = new customResources.AwsCustomResource(this, "Failure", {
      onCreate: {
        service: "DynamoDB",
        action: "DescribeTable",
        parameters: { TableName: "${NO_SUCH_TABLE}" },
        physicalResourceId: customResources.PhysicalResourceId.of("failure"),
      },
      policy: customResources.AwsCustomResourcePolicy.fromSdkCalls({
        resources: ["arn:aws:dynamodb:us-east-1:000000000000:table/${NO_SUCH_TABLE}"],
      }),
    });
    failure.node.addDependency(this.pipeline.capture, this.pipeline.stateTable);
    this.pipeline.deployed.node.addDependency(failure);
`,
] as const;
/** A deploy that fails needs none. */
const NO_SECRET = "arn:aws:secretsmanager:us-east-1:000000000000:secret:none-AbCdEf";

type Item = NonNullable<GetItemCommandOutput["Item"]>;

const NOTHING = {
  streams: [],
  tables: [],
  queues: [],
  buckets: [],
  services: [],
  functions: [],
  alarmsAndDashboards: [],
  logGroups: [],
};

async function connect(cloud: Cloud) {
  const environment = cloudEnvironment(cloud);
  return {
    kinesis: kinesisClient(environment),
    dynamodb: dynamodbClient(environment),
    sqs: sqsClient(environment),
    s3: await s3Client(environment),
    lambda: await lambdaClient(environment),
    secrets: await secretsManagerClient(environment),
  };
}
