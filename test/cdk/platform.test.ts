import { CfnResource, RemovalPolicy, Stack, TagManager, Tags } from "aws-cdk-lib";
import { Annotations, Match } from "aws-cdk-lib/assertions";
import * as iam from "aws-cdk-lib/aws-iam";
import * as kms from "aws-cdk-lib/aws-kms";
import { expect, test } from "vitest";
import { CdcPipeline } from "../../cdk/constructs/cdc-pipeline.ts";
import { basics, definition, ENVIRONMENT, findings, full, minimal, newApp, synthesize } from "./stacks.ts";

/*
 * What a platform team asks of every stack: tags, a permissions boundary, its own keys of logs.
 */

const BOUNDARY = {
  "Fn::Join": ["", ["arn:", { Ref: "AWS::Partition" }, ":iam::123456789012:policy/platform-boundary"]],
};

const platform = synthesize((stack) => {
  Tags.of(stack).add("team", "orders");
  return {
    ...basics(stack),
    definition: definition(),
    consumers: {
      "customer-view": { redrive: { queue: true }, tracing: true },
      notifications: {
        logEncryptionKey: kms.Key.fromKeyArn(
          stack,
          "Elsewhere",
          "arn:aws:kms:eu-central-1:123456789012:key/00000000-0000-0000-0000-000000000001",
        ),
      },
    },
    logEncryptionKey: new kms.Key(stack, "LogKey", { enableKeyRotation: true }),
    permissionsBoundary: iam.ManagedPolicy.fromManagedPolicyName(stack, "Boundary", "platform-boundary"),
    removalPolicy: RemovalPolicy.DESTROY,
    warmThroughput: { streamMiBps: 100, stateTableReadUnits: 20_000, stateTableWriteUnits: 8000 },
  };
});
const ours = ({ template }: Pick<typeof platform, "template">, type: string) =>
  Object.entries(template.findResources(type)).filter(([id]) => !id.startsWith("Vpc"));

test("cdk-nag finds nothing in it that is not answered", () => {
  expect(findings(platform)).toEqual([]);
});

test("the boundary is on every role, with those of CDK's functions for custom resources", () => {
  const roles = ours(platform, "AWS::IAM::Role");
  expect(roles.map(([id]) => id).join()).toMatch(
    /AWS679f53.*CustomS3AutoDelete|CustomS3AutoDelete.*AWS679f53/,
  );
  for (const [id, { Properties }] of roles)
    expect([id, Properties.PermissionsBoundary]).toEqual([id, BOUNDARY]);
  expect(JSON.stringify(minimal().template.toJSON())).not.toContain("PermissionsBoundary");
});

test("tags reach all that has tags; what has none is known", () => {
  const written = platform.template.toJSON().Resources as Record<string, { Properties?: { Tags?: unknown } }>;
  const resources = platform.stack.node
    .findAll()
    .filter((each) => CfnResource.isCfnResource(each) && Stack.of(each) === platform.stack) as CfnResource[];
  const untagged: string[] = [];
  for (const resource of resources) {
    const id = platform.stack.resolve(resource.logicalId) as string;
    if (!written[id]) continue;
    if (JSON.stringify(written[id].Properties ?? {}).includes('"team"')) continue;
    expect([id, TagManager.of(resource) !== undefined]).toEqual([id, false]);
    const provider = id.startsWith("CustomS3AutoDelete") ? " of CDK's bucket emptier" : "";
    untagged.push(resource.cfnResourceType + provider);
  }
  // CloudFormation knows no tags of these. CDK's bucket emptier has such that only tags of the stack itself reach: `new Stack(…, { tags })`.
  expect([...new Set(untagged)].sort()).toEqual([
    "AWS::EC2::Route",
    "AWS::EC2::SubnetRouteTableAssociation",
    "AWS::EC2::VPCGatewayAttachment",
    "AWS::IAM::Policy",
    "AWS::IAM::Role of CDK's bucket emptier",
    "AWS::Lambda::Function of CDK's bucket emptier",
    "AWS::Logs::MetricFilter",
    "AWS::S3::BucketPolicy",
    "AWS::SQS::QueuePolicy",
    "Custom::AWS",
    "Custom::S3AutoDeleteObjects",
  ]);
});

test("every log is kept under its key, and the policy of a key of the app's own lets CloudWatch Logs use it", () => {
  const groups = ours(platform, "AWS::Logs::LogGroup").map(([id, { Properties }]) => [
    id.replace(/[0-9A-F]{8}$/, ""),
    JSON.stringify(Properties.KmsKeyId ?? "none"),
  ]);
  expect(groups.length).toBe(7);
  for (const [id, key] of groups)
    expect(key, id).toContain(id?.includes("notifications") ? "000000000001" : "LogKey");
  const [, key] = ours(platform, "AWS::KMS::Key").find(([id]) => id.startsWith("LogKey")) ?? ["", undefined];
  // https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/encrypt-log-data-kms.html
  expect(key?.Properties.KeyPolicy.Statement).toContainEqual({
    Sid: "CloudWatchLogs",
    Effect: "Allow",
    Principal: { Service: { "Fn::Join": ["", ["logs.eu-central-1.", { Ref: "AWS::URLSuffix" }]] } },
    Action: ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:Describe*"],
    Resource: "*",
    Condition: {
      ArnLike: {
        "kms:EncryptionContext:aws:logs:arn": {
          "Fn::Join": [
            "",
            ["arn:", { Ref: "AWS::Partition" }, ":logs:eu-central-1:123456789012:log-group:*"],
          ],
        },
      },
    },
  });
  Annotations.fromStack(platform.stack).hasInfo(
    "*",
    Match.stringLikeRegexp(
      "consumers.notifications.logEncryptionKey was made elsewhere.*encrypt-log-data-kms",
    ),
  );
});

test("the pipeline's own key for logs makes no circle, and a consumer's logs are kept as long as it says", () => {
  const groups = ours(full(), "AWS::Logs::LogGroup").filter(([id]) => id.startsWith("Pipeline"));
  for (const [id, { Properties }] of groups) {
    expect(JSON.stringify(Properties.KmsKeyId), id).toContain("PipelineKey");
    expect([id, Properties.RetentionInDays]).toEqual([id, id.includes("customerview") ? 365 : 14]);
  }
  // Template.fromStack refuses circles.
  expect(groups.length).toBeGreaterThan(4);
});

test("stream and state table are warm from the beginning on", () => {
  const [[, stream], [, table]] = [
    ...ours(platform, "AWS::Kinesis::Stream"),
    ...ours(platform, "AWS::DynamoDB::Table"),
  ] as [[string, { Properties: object }], [string, { Properties: object }]];
  expect(stream.Properties).toMatchObject({ WarmThroughputMiBps: 100 });
  expect(table.Properties).toMatchObject({
    WarmThroughput: { ReadUnitsPerSecond: 20_000, WriteUnitsPerSecond: 8000 },
  });
  expect(JSON.stringify(minimal().template.toJSON())).not.toContain("WarmThroughput");
});

test("two pipelines of a stack share the boundary, and another one is refused", () => {
  const stack = new Stack(newApp(), "Two", { env: ENVIRONMENT });
  const of = (name: string) => iam.ManagedPolicy.fromManagedPolicyName(stack, name, name.replace(/\d/, ""));
  const { vpc, secret, database, databaseName } = basics(stack);
  const pipeline = (name: string, permissionsBoundary: iam.IManagedPolicy) =>
    new CdcPipeline(stack, name, {
      ...{ vpc, secret, database, databaseName, permissionsBoundary },
      definition: definition({ name }),
    });
  pipeline("shop", of("boundary1"));
  pipeline("audit", of("boundary2"));
  expect(() => pipeline("other", of("another"))).toThrow(
    /permissionsBoundary: .*Two\/shop has given their roles/,
  );
});
