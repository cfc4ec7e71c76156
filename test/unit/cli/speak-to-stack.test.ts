import { execFile } from "node:child_process";
import { mkdtemp, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Command } from "commander";
import { afterEach, beforeEach, expect, it } from "vitest";
import { verbs } from "../../../docs/command-line-tables.ts";
import { commandPlace } from "../../../lib/change/command-place.ts";
import { withCommands } from "../../../lib/change/printed-command.ts";
import { VERBS } from "../../../lib/cli/place.ts";
import { queueOf } from "../../../lib/cli/redrive-run.ts";
import { resourcesOf } from "../../../lib/cli/resources-of.ts";
import { chooseAws, speakToStack } from "../../../lib/cli/speak-to-stack.ts";
import { outputDescription, outputKey, type StackOutput } from "../../../lib/definition/stack-outputs.ts";
import { type AwsServer, answerAws, stackXml } from "../admin/aws-answers.ts";

const CLI = fileURLToPath(new URL("../../../lib/cli/main.ts", import.meta.url));
const PIPELINE = fileURLToPath(new URL("../../../cdk/pipeline.ts", import.meta.url));

let aws: AwsServer;
let folder: string;
/** Stacks are read once in a run: each test has its own. */
let number = 0;
let stack: string;
beforeEach(async () => {
  stack = `Shop${++number}`;
  const output = (of: StackOutput, value: string) => ({
    ...{ key: outputKey(of), value, description: outputDescription(of) },
  });
  const pipeline = "shop";
  const outputs = [
    output({ pipeline, resource: "stateTable" }, "shop-state"),
    output({ pipeline, resource: "stream" }, "shop-stream"),
    output({ pipeline, consumer: "notifications", resource: "redriveFunction" }, "shop-redrive"),
    output({ pipeline, consumer: "notifications", resource: "deadLetterQueue" }, "https://sqs/letters"),
    output({ pipeline, consumer: "audit", resource: "redriveFunction" }, "audit-redrive"),
  ];
  aws = await answerAws(({ action, parameters }) => {
    if (action === "DescribeStacks" && String(parameters.StackName).includes(stack))
      return { result: stackXml(stack, outputs) };
    if (action === "GetCallerIdentity")
      return { result: "<Arn>arn:aws:iam::123456789012:user/ada</Arn><Account>123456789012</Account>" };
    if (action === "ListStacks") return { result: "<StackSummaries></StackSummaries>" };
    return { error: "ValidationError", message: `Stack with id ${parameters.StackName} does not exist` };
  });
  folder = await realpath(await mkdtemp(join(tmpdir(), "tributary-stack-")));
  await writeFile(join(folder, "package.json"), "{}");
});
afterEach(async () => {
  await aws.close();
  await rm(folder, { recursive: true });
});

function environmentWith(more: Record<string, string> = {}): Record<string, string | undefined> {
  const keys = { AWS_ACCESS_KEY_ID: "test", AWS_SECRET_ACCESS_KEY: "test" };
  return { AWS_ENDPOINT_URL: aws.url, AWS_REGION: "eu-west-1", ...keys, ...more };
}

/** What a verb with these options has of its environment and options then. */
async function verb(
  options: Readonly<Record<string, string>>,
  more: Record<string, string> = {},
  name = "backfill",
) {
  const command = new Command(name);
  for (const [option, value] of Object.entries({ pipeline: PIPELINE, ...options }))
    command.setOptionValue(option, value);
  const environment = environmentWith(more);
  chooseAws(command, environment);
  const speaks = await speakToStack(command, environment);
  return { speaks, environment, options: command.opts<Record<string, string>>() };
}

it("gives a verb what names the pipeline's resources, by the option and by the variable", async () => {
  const names = {
    TRIBUTARY_STATE_TABLE: "shop-state",
    TRIBUTARY_STREAM: "shop-stream",
    TRIBUTARY_PIPELINE_NAME: "shop",
    TRIBUTARY_STACK: stack,
    // Commands that are printed name it.
    TRIBUTARY_STACK_NAME: stack,
  };
  const { speaks, environment } = await verb({ stack });
  expect([speaks, environment]).toEqual([true, expect.objectContaining(names)]);
  // What the stack does not have is not another place's.
  const { environment: other } = await verb(
    {},
    { TRIBUTARY_STACK: stack, TRIBUTARY_CLAIM_BUCKET: "s3://other" },
  );
  expect(other).toMatchObject(names);
  expect(other).not.toHaveProperty("TRIBUTARY_CLAIM_BUCKET");
  expect(aws.calls.filter(({ action }) => action === "DescribeStacks")).toHaveLength(1);
  expect(await resourcesOf({ name: "shop" }, {}, { folder, environment })).toMatchObject({
    ...{ stack, place: `stack ${stack} in eu-west-1`, stateTable: "shop-state" },
    consumers: { notifications: { redriveFunction: "shop-redrive" } },
  });
  await expect(resourcesOf({ name: "billing" }, {}, { folder, environment })).rejects.toThrow(
    /no pipeline "billing"/,
  );
});

it("takes no queue of another place for a consumer whose queue the stack does not name", async () => {
  const left = { TRIBUTARY_DEAD_LETTER_QUEUE_URL: "https://sqs/other-pipeline" };
  const options = { stack, consumer: "audit" };
  expect((await verb(options, left, "redrive")).environment).not.toHaveProperty(
    "TRIBUTARY_DEAD_LETTER_QUEUE_URL",
  );
  const { environment } = await verb(options, left);
  const resources = await resourcesOf({ name: "shop" }, {}, { folder, environment });
  expect(queueOf(resources, "audit", environment)).toBeUndefined();
  expect(queueOf(resources, "notifications", environment)).toBe("https://sqs/letters");
  // Where variables name the place, one names the queue.
  expect(queueOf({ ...resources, stack: undefined }, "audit", environment)).toBe(
    "https://sqs/other-pipeline",
  );
});

it("finds the function of a redrive, but for one that has the handler's file", async () => {
  const consumer = "notifications";
  expect((await verb({ stack, consumer }, {}, "redrive")).options.function).toBe("shop-redrive");
  const { options, environment } = await verb({ stack, consumer, entry: "orders.ts" }, {}, "redrive");
  expect(options.function).toBeUndefined();
  expect(environment.TRIBUTARY_DEAD_LETTER_QUEUE_URL).toBe("https://sqs/letters");
  await expect(verb({ stack, consumer: "notification" }, {}, "redrive")).rejects.toThrow(
    /--consumer: name a consumer of the stack Shop\d+: notifications, audit \(got "notification"\)/,
  );
});

it("refuses what contradicts the stack, before anything is asked of its table", async () => {
  const refused = async (options: Record<string, string>, more: Record<string, string> = {}) =>
    await verb({ stack, ...options }, more, "redrive").then(
      () => "taken",
      (error: Error) => error.message,
    );
  const consumer = "notifications";
  expect(await refused({ consumer, stateTable: "other" })).toMatch(
    /--state-table: the stack Shop\d+ has shop-state: leave/,
  );
  expect(await refused({ consumer, function: "other" })).toMatch(
    /--function: the stack Shop\d+ has shop-redrive/,
  );
  for (const same of ["shop-redrive", "arn:aws:lambda:eu-west-1:1:function:shop-redrive"])
    expect(await refused({ consumer, function: same, stateTable: "shop-state" })).toBe("taken");
  expect(await refused({ consumer, function: "arn:aws:lambda:us-east-2:1:function:shop-redrive" })).toMatch(
    /--function: the stack/,
  );
  const arn = `arn:aws:cloudformation:us-east-2:123456789012:stack/${stack}/1`;
  expect(await refused({ consumer, stack: arn, region: "eu-west-1" })).toMatch(/--region: .*is in us-east-2/);
  // An option is stronger than a variable; two variables are not.
  const other = { TRIBUTARY_STATE_TABLE: "other" };
  expect((await verb({ stack }, other)).environment.TRIBUTARY_STATE_TABLE).toBe("shop-state");
  await expect(verb({}, { ...other, TRIBUTARY_STACK: stack })).rejects.toThrow(/\$TRIBUTARY_STATE_TABLE/);
});

it("leaves the stack of a variable alone where an option names another place", async () => {
  const { speaks, environment } = await verb({ stateTable: "other" }, { TRIBUTARY_STACK: stack });
  expect(speaks).toBe(false);
  expect(environment).not.toHaveProperty("TRIBUTARY_STACK");
  expect(aws.calls).toEqual([]);
});

it("takes the pipeline of a stack where no definition is found here", async () => {
  const { stdout, stderr, code } = await run(["redrive", "--consumer", "nobody", "--stack", stack], folder);
  expect([code, stdout]).toEqual([2, ""]);
  expect(stderr).toContain(`speaking to pipeline shop of stack ${stack} in eu-west-1`);
  expect(stderr).toContain("name a consumer of the stack");
});

it("a profile is stronger than keys in variables, as with the AWS CLI", () => {
  const environment = environmentWith({ AWS_SESSION_TOKEN: "token" });
  const command = new Command("status");
  command.setOptionValue("profile", "production");
  command.setOptionValue("region", "us-east-2");
  chooseAws(command, environment);
  expect(environment).toMatchObject({ AWS_PROFILE: "production", AWS_REGION: "us-east-2" });
  for (const name of ["ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"])
    expect(environment).not.toHaveProperty(`AWS_${name}`);
});

it("commands that are printed speak to the AWS that the command line chose", async () => {
  const { environment } = await verb({ stack, region: "eu-west-1" });
  expect(withCommands("tributary capture resume", commandPlace(environment))).toMatch(
    new RegExp(` capture resume --stack ${stack} --region eu-west-1$`),
  );
  const chosen = environmentWith();
  const command = new Command("status");
  command.setOptionValue("profile", "production two");
  chooseAws(command, chosen);
  const place = commandPlace(chosen);
  const typed =
    "aws ecs update-service --profile 'production two' --cluster C, or: aws logs tail --profile 'production two' /l";
  expect(withCommands("aws ecs update-service --cluster C, or: aws logs tail /l", place)).toBe(typed);
  expect(withCommands(typed, place), "typed so already").toBe(typed);
});

it("every verb that asks a pipeline's state has the three options", () => {
  for (const [words, command] of verbs()) {
    if (!VERBS.includes(words.split(" ")[0] as string)) continue;
    const flags = command.options.map(({ long }) => long);
    expect(flags, words).toEqual(expect.arrayContaining(["--stack", "--profile", "--region", "--pipeline"]));
  }
});

it("exits with code 2 where a region is missing, and 1 where the stack is, and prints nothing else", async () => {
  const status = ["consumer", "status", "--pipeline", PIPELINE, "--json", "--stack"];
  const missing = await run([...status, stack], folder, { AWS_REGION: "" });
  expect([missing.code, missing.stdout]).toEqual([2, ""]);
  expect(missing.stderr).toContain("--region");
  const unknown = await run([...status, "Shpo"], folder);
  expect([unknown.code, unknown.stdout]).toEqual([1, ""]);
  expect(unknown.stderr).toMatch(/there is no stack "Shpo" in account 123456789012, region eu-west-1/);
});

/** The command as a user runs it. */
async function run(args: readonly string[], cwd: string, more: Record<string, string> = {}) {
  const own = Object.entries(process.env).filter(
    ([name]) => !/^(AWS_|TRIBUTARY_|PG|DATABASE_URL)/.test(name),
  );
  const env = {
    ...Object.fromEntries(own),
    ...environmentWith({ AWS_CONFIG_FILE: "/nowhere", AWS_SHARED_CREDENTIALS_FILE: "/nowhere", ...more }),
  };
  return await new Promise<{ code: number; stdout: string; stderr: string }>((done) => {
    execFile(process.execPath, [CLI, ...args], { cwd, env }, (error, stdout, stderr) =>
      done({ code: error === null ? 0 : Number(error.code), stdout, stderr }),
    );
  });
}
