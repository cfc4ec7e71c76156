import { afterEach, beforeEach, describe, expect, it, test, vi } from "vitest";
import { pipelineOfStack, readStack } from "../../../lib/admin/stack-resources.ts";
import type { TributaryError } from "../../../lib/change/tributary-error.ts";
import { outputDescription, outputKey, type StackOutput } from "../../../lib/definition/stack-outputs.ts";
import { type AwsAnswer, type AwsServer, answerAws, stackXml } from "./aws-answers.ts";

const ACCOUNT = "123456789012";
const IDENTITY: AwsAnswer = {
  result: `<Arn>arn:aws:iam::${ACCOUNT}:user/ada</Arn><UserId>ADA</UserId><Account>${ACCOUNT}</Account>`,
};

let aws: AwsServer;
let answers: Record<string, AwsAnswer>;
beforeEach(async () => {
  answers = { GetCallerIdentity: IDENTITY };
  aws = await answerAws(({ action }) => answers[action] ?? { error: "AccessDenied", status: 403 });
  for (const name of Object.keys(process.env).filter((one) => /^AWS_/.test(one))) vi.stubEnv(name, undefined);
  vi.stubEnv("AWS_ENDPOINT_URL", aws.url);
  vi.stubEnv("AWS_REGION", "eu-west-1");
  vi.stubEnv("AWS_ACCESS_KEY_ID", "test");
  vi.stubEnv("AWS_SECRET_ACCESS_KEY", "test");
  // No file of this machine.
  vi.stubEnv("AWS_CONFIG_FILE", "/nowhere/config");
  vi.stubEnv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere/credentials");
  vi.stubEnv("AWS_EC2_METADATA_DISABLED", "true");
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await aws.close();
});

const output = (of: StackOutput, value: string) => ({
  key: outputKey(of),
  value,
  description: outputDescription(of),
});

function pipelineOutputs(pipeline: string) {
  return [
    output({ pipeline, resource: "stream" }, `${pipeline}-stream`),
    output({ pipeline, resource: "stateTable" }, `${pipeline}-state`),
    output({ pipeline, resource: "claimStore" }, `s3://${pipeline}/changes`),
    output({ pipeline, resource: "captureDeadLetters" }, `https://sqs/${pipeline}`),
    output({ pipeline, resource: "cluster" }, `${pipeline}-cluster`),
    output({ pipeline, slot: 2, resource: "service" }, `${pipeline}-service-2`),
    output({ pipeline, slot: 1, resource: "service" }, `${pipeline}-service`),
    output({ pipeline, consumer: "order-summary", resource: "function" }, `${pipeline}-handler`),
    output({ pipeline, consumer: "order-summary", resource: "mapping" }, "11-22"),
    output({ pipeline, consumer: "order-summary", resource: "redriveFunction" }, `${pipeline}-redrive`),
    output({ pipeline, consumer: "order-summary", resource: "deadLetterQueue" }, "https://sqs/letters"),
    output({ pipeline, consumer: "order-summary", resource: "redriveQueue" }, "arn:queue"),
  ];
}

function deployed(...pipelines: string[]): void {
  answers.DescribeStacks = { result: stackXml("Shop", pipelines.flatMap(pipelineOutputs)) };
}

async function refusal(stack = "Shop"): Promise<TributaryError & { readonly name: string }> {
  return await readStack(stack).then(
    () => expect.unreachable(),
    (error: TributaryError) => error,
  );
}

test("names of outputs come back as they were, and no two are the same", () => {
  const names = ["a", "a1", "a-1", "a-x1", "a-z", "az", "a--b", "a-b", "a-", "a--", "order-summary"];
  const outputs: StackOutput[] = names.flatMap((name): StackOutput[] => [
    { pipeline: name, resource: "stateTable" },
    { pipeline: name, slot: 12, resource: "service" },
    { pipeline: "shop", consumer: name, resource: "redriveFunction" },
  ]);
  const keys = outputs.map(outputKey);
  expect(new Set(keys).size).toBe(outputs.length);
  for (const key of keys) expect(key).toMatch(/^[A-Za-z0-9]{1,255}$/);
});

it("gives every resource that the outputs name, of each pipeline in the stack", async () => {
  deployed("shop", "shop-audit");
  const stack = await readStack("Shop");
  expect(stack.pipelines.map(({ pipeline }) => pipeline)).toEqual(["shop", "shop-audit"]);
  expect(pipelineOfStack(stack, "shop")).toEqual({
    pipeline: "shop",
    place: "stack Shop in eu-west-1",
    stack: "Shop",
    stateTable: "shop-state",
    stream: "shop-stream",
    claimStore: "s3://shop/changes",
    captureDeadLetters: "https://sqs/shop",
    captures: [
      { slot: 1, cluster: "shop-cluster", service: "shop-service" },
      { slot: 2, cluster: "shop-cluster", service: "shop-service-2" },
    ],
    consumers: {
      "order-summary": {
        function: "shop-handler",
        mapping: "11-22",
        redriveFunction: "shop-redrive",
        verifyTask: undefined,
        entry: undefined,
        deadLetterQueue: "https://sqs/letters",
      },
    },
  });
});

it("passes over outputs of others, and of a version that names more", async () => {
  const more = [
    { key: "Url", value: "https://shop" },
    { key: "TributaryShopLake", value: "lake", description: "Tributary pipeline shop: lake" },
  ];
  answers.DescribeStacks = { result: stackXml("Shop", [...more, ...pipelineOutputs("shop")]) };
  const stack = await readStack("Shop");
  expect(stack.pipelines).toHaveLength(1);
  expect(pipelineOfStack(stack, undefined)).toMatchObject({ pipeline: "shop" });
});

describe("the pipeline of a stack", () => {
  it("is chosen by the definition's name, and must be named where there are several", async () => {
    deployed("shop", "billing");
    const stack = await readStack("Shop");
    expect(pipelineOfStack(stack, "billing").stateTable).toBe("billing-state");
    expect(() => pipelineOfStack(stack, undefined)).toThrow(/several pipelines: shop, billing/);
    expect(() => pipelineOfStack(stack, "audit")).toThrow(/no pipeline "audit", but shop, billing/);
  });

  it("is not there: the stack is another one, is being made, or was deployed by an older version", async () => {
    const told = async (outputs: { key: string; value: string }[], status?: string) => {
      answers.DescribeStacks = { result: stackXml("Shop", outputs, status) };
      const stack = await readStack("Shop");
      try {
        pipelineOfStack(stack, "shop");
      } catch (error) {
        const { message, remedy, code } = error as TributaryError;
        return `${code}: ${message} ${remedy}`;
      }
      return expect.unreachable();
    };
    expect(await told([{ key: "Url", value: "https://shop" }])).toMatch(
      /^STACK_PIPELINE: .*has no pipeline of Tributary.*CdcPipeline/s,
    );
    expect(await told([], "CREATE_IN_PROGRESS")).toMatch(
      /CREATE_IN_PROGRESS.*Wait until its deploy has ended/s,
    );
    const old = { key: "PipelineStateTableName0A1B2C3D", value: "Shop-State" };
    expect(await told([old])).toMatch(/older version.*npx cdk deploy.*--state-table/s);
  });
});

describe("a stack that cannot be read", () => {
  const none = { error: "ValidationError", message: "Stack with id Shpo does not exist" };

  it("is not there: account, profile and region are named, and names near it", async () => {
    vi.stubEnv("AWS_PROFILE", undefined);
    const names = ["Billing", "Shop", "shop-staging", "CDKToolkit"];
    answers.DescribeStacks = none;
    answers.ListStacks = {
      result: `<StackSummaries>${names.map((name) => `<member><StackName>${name}</StackName><CreationTime>2026-11-30T00:00:00Z</CreationTime><StackStatus>CREATE_COMPLETE</StackStatus></member>`).join("")}</StackSummaries>`,
    };
    const error = await refusal("Shpo");
    expect(error.code).toBe("STACK_NOT_FOUND");
    expect(error.message).toMatch(
      /no stack "Shpo" in account 123456789012, region eu-west-1; there is Shop, /,
    );
    expect(error.remedy).toMatch(/--profile.*--region/);
    // Stacks that are gone are no stacks.
    const asked = aws.calls.find(({ action }) => action === "ListStacks");
    expect(Object.values(asked?.parameters ?? {})).not.toContain("DELETE_COMPLETE");
  });

  it("is not there, and the names of others may not be listed", async () => {
    answers.DescribeStacks = none;
    const error = await refusal("Shpo");
    expect(error.message).toMatch(/no stack "Shpo" in account 123456789012, region eu-west-1$/);
    expect(error.remedy).toContain("cloudformation:ListStacks");
  });

  it("is of another account", async () => {
    const arn = "arn:aws:cloudformation:us-east-2:999999999999:stack/Shop/6d3f";
    for (const answer of [none, { error: "AccessDenied", status: 403 }]) {
      answers.DescribeStacks = answer;
      const error = await refusal(arn);
      expect(error.code).toBe("STACK_OTHER_ACCOUNT");
      expect(error.message).toMatch(
        /Shop is of account 999999999999.*account 123456789012, region us-east-2/,
      );
    }
  });

  it.each(["ExpiredToken", "ExpiredTokenException", "RequestExpired"])(
    "%s: they have expired",
    async (name) => {
      answers = {
        DescribeStacks: { error: name, status: 403 },
        GetCallerIdentity: { error: name, status: 403 },
      };
      const error = await refusal();
      expect(error.code).toBe("AWS_CREDENTIALS");
      expect(error.message).toContain("have expired");
      expect(error.remedy).toMatch(/aws sso login.*--profile/);
    },
  );

  it("wrong keys and missing ones are told apart", async () => {
    answers = { DescribeStacks: { error: "InvalidClientTokenId", status: 403 } };
    expect(await refusal()).toMatchObject({
      code: "AWS_CREDENTIALS",
      message: expect.stringContaining("not valid"),
    });
    vi.stubEnv("AWS_ACCESS_KEY_ID", undefined);
    vi.stubEnv("AWS_SECRET_ACCESS_KEY", undefined);
    expect(await refusal()).toMatchObject({
      code: "AWS_CREDENTIALS",
      message: expect.stringContaining("none were found"),
    });
  });

  it("a profile that is not there is named", async () => {
    vi.stubEnv("AWS_PROFILE", "nobody");
    expect(await refusal()).toMatchObject({
      code: "AWS_CREDENTIALS",
      message: expect.stringContaining('profile "nobody"'),
    });
  });

  it("a right that is missing is named, and who lacks it", async () => {
    answers.DescribeStacks = { error: "AccessDenied", status: 403 };
    const error = await refusal();
    expect(error.code).toBe("AWS_RIGHT_MISSING");
    expect(error.message).toBe(
      "arn:aws:iam::123456789012:user/ada may not call cloudformation:DescribeStacks in account 123456789012, region eu-west-1",
    );
  });

  it("no region is known, or one that cannot be", async () => {
    vi.stubEnv("AWS_REGION", undefined);
    const error = await refusal();
    expect(error.code).toBe("CONFIGURATION");
    expect(error.message).toMatch(/--region: .*\$AWS_REGION/);
    vi.stubEnv("AWS_PROFILE", "nobody");
    expect((await refusal()).message).toContain('"nobody" has none, or is not there');
    vi.stubEnv("AWS_PROFILE", undefined);
    vi.stubEnv("AWS_REGION", "eu west");
    expect((await refusal()).message).toMatch(/--region: .*\(got "eu west"\)/);
    expect(aws.calls).toEqual([]);
  });

  it("nobody answers", async () => {
    vi.stubEnv("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
    const error = await refusal();
    expect(error.code).toBe("AWS_UNAVAILABLE");
    expect(error.message).toMatch(/DescribeStacks failed: ECONNREFUSED/);
  });
});
