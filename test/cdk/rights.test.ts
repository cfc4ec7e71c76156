import { Duration } from "aws-cdk-lib";
import { describe, expect, test } from "vitest";
import { allows, rightsOf, rolesOf, type Statement } from "./policies.ts";
import { basics, definition, findings, full, synthesize } from "./stacks.ts";

/*
 * README's least privilege: each right of each role, in full. A right more or less than these is red; that no needed one is missing
 * is seen where a consumer runs under its policy (test/aws/consume/rights.test.ts).
 */

const choices = synthesize((stack) => {
  const given = basics(stack);
  return {
    ...given,
    definition: definition(),
    consumers: {
      notifications: {
        vpc: given.vpc,
        enhancedFanOut: true,
        tracing: true,
        redrive: { queue: true, every: Duration.hours(1) },
      },
    },
  };
});
const roles = rolesOf(choices.template);

const KEY = ["Decrypt", "DescribeKey", "Encrypt", "GenerateDataKey", "ReEncryptFrom", "ReEncryptTo"].map(
  (action) => `kms:${action} on PipelineKey`,
);

function items(actions: readonly string[], ...keys: string[]): string[] {
  const where = `if ForAllValues:StringLike dynamodb:LeadingKeys ${keys.join(" | ")} if Null dynamodb:LeadingKeys false`;
  return actions.map((action) => `dynamodb:${action} on PipelineStateTable ${where}`);
}

const USE = ["GetItem", "PutItem", "UpdateItem", "DeleteItem", "Query"];

/** What a consumer's function and its redrive both may. */
function consumer(name: string, handler: "Handler" | "RedriveHandler"): string[] {
  const part = `PipelineConsumer${name.replaceAll("-", "")}`;
  return [
    ...items(USE, `shop#consumer#${name}`, `shop#consumer#${name}#*`),
    ...items(["GetItem"], "shop#pauses"),
    ...KEY,
    `logs:CreateLogStream on ${part}${handler}Logs`,
    `logs:PutLogEvents on ${part}${handler}Logs`,
    "s3:GetObject on PipelineClaimsBucket/changes/shop/*",
    `s3:PutObject on PipelineClaimsBucket/changes/shop/parked/${name}/*`,
    // Without it a missing object looks forbidden.
    "s3:ListBucket on PipelineClaimsBucket",
    `sqs:SendMessage on ${part}DeadLettersQueue`,
  ];
}

/** What Lambda does with a consumer's role. https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-create.html */
const MAPPING = [
  "kinesis:DescribeStream on PipelineChangeStream",
  "kinesis:DescribeStreamSummary on PipelineChangeStream",
  "kinesis:GetRecords on PipelineChangeStream",
  "kinesis:GetShardIterator on PipelineChangeStream",
  "kinesis:ListShards on PipelineChangeStream",
  // The name begins with the mapping's id, which is made after the policy.
  "s3:PutObject on PipelineClaimsBucket/aws/lambda/*",
];

/** https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html */
const IN_VPC = [
  "AssignPrivateIpAddresses",
  "CreateNetworkInterface",
  "DeleteNetworkInterface",
  "DescribeNetworkInterfaces",
  "DescribeSubnets",
  "UnassignPrivateIpAddresses",
].flatMap((action) => [
  `ec2:${action} on *`,
  `never ec2:${action} on * if ArnLike lambda:SourceFunctionArn arn:<AWS::Partition>:lambda:eu-central-1:123456789012:function:*`,
]);

/** X-Ray knows no resources. */
const TRACED = ["xray:PutTelemetryRecords on *", "xray:PutTraceSegments on *"];

const REPOSITORY =
  "arn:<AWS::Partition>:ecr:eu-central-1:123456789012:repository/cdk-hnb659fds-container-assets-123456789012-eu-central-1";

/** The sink's code, one object of CDK's bucket by its hash. */
const CODE = "s3:GetObject on arn:<AWS::Partition>:s3:::cdk-hnb659fds-assets-123456789012-eu-central-1/HASH";

const EXPECTED: Record<string, readonly string[]> = {
  PipelineConsumercustomerviewHandlerRole: [...consumer("customer-view", "Handler"), ...MAPPING],
  PipelineConsumercustomerviewRedriveHandlerRole: consumer("customer-view", "RedriveHandler"),
  PipelineConsumernotificationsHandlerRole: [
    ...consumer("notifications", "Handler"),
    ...MAPPING,
    ...IN_VPC,
    ...TRACED,
    "kinesis:DescribeStreamConsumer on PipelineConsumernotificationsFanOut",
    "kinesis:SubscribeToShard on PipelineConsumernotificationsFanOut",
  ],
  PipelineConsumernotificationsRedriveHandlerRole: [
    ...consumer("notifications", "RedriveHandler"),
    ...IN_VPC,
    ...TRACED,
  ],
  PipelineConsumernotificationsAutomaticRedriveRole: [
    "kms:Decrypt on PipelineKey",
    "lambda:InvokeFunction on PipelineConsumernotificationsRedriveHandlerFunction",
    "logs:CreateLogStream on PipelineConsumernotificationsAutomaticRedriveLogs",
    "logs:PutLogEvents on PipelineConsumernotificationsAutomaticRedriveLogs",
    "sqs:DeleteMessage on PipelineConsumernotificationsAutomaticRedriveQueue",
    "sqs:GetQueueAttributes on PipelineConsumernotificationsAutomaticRedriveQueue",
    "sqs:ReceiveMessage on PipelineConsumernotificationsAutomaticRedriveQueue",
  ],
  PipelineCaptureTaskTaskRole: [
    ...items(USE, "shop#*"),
    ...KEY,
    "kinesis:DescribeStreamSummary on PipelineChangeStream",
    "kinesis:GetRecords on PipelineChangeStream",
    "kinesis:GetShardIterator on PipelineChangeStream",
    "kinesis:ListShards on PipelineChangeStream",
    "kinesis:PutRecords on PipelineChangeStream",
    "s3:GetObject on PipelineClaimsBucket/changes/shop/*",
    "s3:PutObject on PipelineClaimsBucket/changes/shop/*",
    "s3:ListBucket on PipelineClaimsBucket",
    "secretsmanager:GetSecretValue on arn:aws:secretsmanager:eu-central-1:123456789012:secret:capture-AbCdEf",
    "sqs:SendMessage on PipelineCaptureDeadLettersQueue",
  ],
  // tributary verify --remote, for the consumer whose entry exports a sink: it reads alone.
  PipelineVerifycustomerviewRole: [
    ...items(
      ["GetItem", "Query"],
      "shop#capture",
      "shop#consumer#customer-view",
      "shop#consumer#customer-view#*",
    ),
    "kms:Decrypt on PipelineKey",
    "kms:DescribeKey on PipelineKey",
    "secretsmanager:GetSecretValue on arn:aws:secretsmanager:eu-central-1:123456789012:secret:capture-AbCdEf",
    CODE,
  ],
  PipelineCaptureTaskExecutionRole: [
    "ecr:BatchCheckLayerAvailability",
    "ecr:BatchGetImage",
    "ecr:GetDownloadUrlForLayer",
  ]
    .map((action) => `${action} on ${REPOSITORY}`)
    .concat(
      "ecr:GetAuthorizationToken on *",
      "logs:CreateLogStream on PipelineCaptureLogs",
      "logs:PutLogEvents on PipelineCaptureLogs",
    ),
  // CDK's provider of the mark that comes last.
  AWS679f53fac002430cb0da5b7982bd2287ServiceRole: [
    ...items(["PutItem"], "shop#capture"),
    "kms:Decrypt on PipelineKey",
    "kms:Encrypt on PipelineKey",
    "kms:GenerateDataKey on PipelineKey",
    "managed on arn:<AWS::Partition>:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole",
  ],
};

describe("each role has these rights, and no others", () => {
  test("there is no role beside them", () => {
    const ours = [...roles.keys()].filter((role) => !role.startsWith("VpcFlow"));
    expect(ours.sort()).toEqual(Object.keys(EXPECTED).sort());
  });

  test.each(Object.entries(EXPECTED))("%s", (role, rights) => {
    const has = rightsOf(roles.get(role) ?? []).map((right) => right.replace(/[0-9a-f]{64}\.\w+/, "HASH"));
    expect(has.sort()).toEqual([...rights].sort());
  });

  test("cdk-nag finds nothing in them that is not answered", () => {
    // X-Ray's is its own: it comes with Lambda's tracing.
    expect(findings(choices).filter((finding) => !finding.includes("IAM5"))).toEqual([]);
  });

  test("signing in by a token: to one database as one user", () => {
    const capture = rightsOf(rolesOf(full().template).get("PipelineCaptureTaskTaskRole") ?? []);
    expect(capture.filter((right) => /rds-db:|secret/.test(right))).toEqual([
      "rds-db:connect on arn:<AWS::Partition>:rds-db:eu-central-1:123456789012:dbuser:db-ABC/capture",
    ]);
  });
});

describe("between consumers", () => {
  const own = roles.get("PipelineConsumercustomerviewHandlerRole") as Statement[];
  const item = (action: string, ...leadingKeys: string[]) =>
    allows(own, {
      action: `dynamodb:${action}`,
      resource: "PipelineStateTable",
      context: { "dynamodb:LeadingKeys": leadingKeys },
    });
  const object = (action: string, key: string) =>
    allows(own, { action: `s3:${action}`, resource: `PipelineClaimsBucket/${key}` });

  test("a consumer's own items are its own", () => {
    for (const action of USE) {
      expect(item(action, "shop#consumer#customer-view")).toBe(true);
      expect(item(action, "shop#consumer#customer-view#parked")).toBe(true);
      for (const foreign of [
        "shop#consumer#notifications",
        "shop#consumer#notifications#parked",
        "shop#consumer#customer-view-2",
        "shop#consumer#customer",
        "shop#capture",
        "shop#backfills",
        "other#consumer#customer-view",
      ])
        expect([action, foreign, item(action, foreign)]).toEqual([action, foreign, false]);
    }
  });

  test("a pause can be read, and not be lifted", () => {
    expect(USE.map((action) => item(action, "shop#pauses"))).toEqual([true, false, false, false, false]);
  });

  test("a request for several items, of which one is another's, or that names none, is refused", () => {
    expect(item("GetItem", "shop#consumer#customer-view", "shop#consumer#notifications")).toBe(false);
    expect(item("GetItem")).toBe(false);
    for (const action of ["Scan", "BatchGetItem", "BatchWriteItem", "PartiQLUpdate", "DeleteTable"])
      expect([action, item(action, "shop#consumer#customer-view")]).toEqual([action, false]);
  });

  test("claims are read by all and written by capture; parked changes are written by their own consumer", () => {
    expect(object("GetObject", "changes/shop/shop.public.orders/3/0001")).toBe(true);
    expect(object("PutObject", "changes/shop/shop.public.orders/3/0001")).toBe(false);
    expect(object("PutObject", "changes/shop/held/shop.public.orders/0001")).toBe(false);
    expect(object("PutObject", "changes/shop/parked/customer-view/shop.public.orders/3/0001")).toBe(true);
    expect(object("PutObject", "changes/shop/parked/notifications/shop.public.orders/3/0001")).toBe(false);
    expect(object("PutObject", "changes/shop/parked/customer-view-2/shop.public.orders/3/0001")).toBe(false);
    expect(object("DeleteObject", "changes/shop/parked/customer-view/shop.public.orders/3/0001")).toBe(false);
  });
});
