import type { Template } from "aws-cdk-lib/assertions";
import { describe, expect, test } from "vitest";
import { environmentBytes, MAX_ENVIRONMENT_BYTES } from "../../lib/aws/lambda-limits.ts";
import { outputKey, parseOutput } from "../../lib/definition/stack-outputs.ts";
import { everyStack, neighbours } from "./five.ts";
import { findings, type Synthesized } from "./stacks.ts";

interface Statement {
  readonly Effect: string;
  readonly Action?: string | string[];
  readonly Resource?: unknown;
  readonly Principal?: unknown;
}

interface Resource {
  readonly Type: string;
  // biome-ignore lint/suspicious/noExplicitAny: a template's resources have no type
  readonly Properties: any;
}

function resourcesOf(template: Template, type = /./): [string, Resource][] {
  return Object.entries(template.toJSON().Resources as Record<string, Resource>).filter(([, { Type }]) =>
    type.test(Type),
  );
}

/** What a value of a template is at most, where it is made at deploy: with 40 characters for each reference. */
function written(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) =>
    inner && typeof inner === "object" && ("Ref" in inner || "Fn::GetAtt" in inner) ? "r".repeat(40) : inner,
  );
}

/** The text of a property that CDK joins of parts and references. */
function joined(value: unknown): string {
  if (typeof value === "string") return value;
  const { "Fn::Join": join } = value as { "Fn::Join": [string, unknown[]] };
  return join[1].map((part) => (typeof part === "string" ? part : "r".repeat(40))).join(join[0]);
}

function dashboardsOf(template: Template) {
  return resourcesOf(template, /^AWS::CloudWatch::Dashboard$/).map(
    ([, { Properties }]) =>
      JSON.parse(joined(Properties.DashboardBody)) as {
        widgets: { type: string; properties: { alarms?: unknown[]; metrics?: unknown[] } }[];
      },
  );
}

describe.each(everyStack())("%s", (name, of: Synthesized) => {
  const { template } = of;

  test("cdk-nag finds nothing that is not answered", () => {
    expect(findings(of)).toEqual([]);
  });

  test("no role may do everything, or something to everything, but for what AWS ties to no resource", () => {
    const wide = resourcesOf(template, /^AWS::IAM::(Policy|ManagedPolicy|Role)$/).flatMap(
      ([id, { Properties }]) => {
        const documents = [
          Properties.PolicyDocument,
          ...(Properties.Policies ?? []).map(
            ({ PolicyDocument }: { PolicyDocument: unknown }) => PolicyDocument,
          ),
        ];
        return documents
          .flatMap((document) => (document?.Statement ?? []) as Statement[])
          .filter(({ Effect }) => Effect === "Allow")
          .flatMap((statement) => {
            const everywhere = [statement.Resource].flat().includes("*");
            return [statement.Action ?? "NotAction"]
              .flat()
              .filter((action) => everywhere || !/^[a-z0-9-]+:\w+$/.test(action))
              .map((action) => `${id.replace(/[0-9A-F]{8}$/, "")}: ${action}`);
          });
      },
    );
    // Network interfaces of functions in a VPC: rights.test.ts holds their conditions.
    for (const each of wide)
      expect(each).toMatch(
        /CaptureTaskExecutionRoleDefaultPolicy: ecr:GetAuthorizationToken$|HandlerRoleDefaultPolicy: ec2:\w+(NetworkInterfaces?|Subnets|PrivateIpAddresses)$/,
      );
  });

  test("resource policies let in nobody but services and roles that they name", () => {
    for (const [id, { Properties }] of resourcesOf(
      template,
      /^AWS::(SQS::QueuePolicy|SNS::TopicPolicy|S3::BucketPolicy)$/,
    )) {
      for (const statement of Properties.PolicyDocument.Statement as Statement[]) {
        if (JSON.stringify(statement.Principal).includes('"*"'))
          expect([id, statement.Effect]).toEqual([id, "Deny"]);
      }
    }
  });

  test("outputs have keys that names alone make, no two alike, and no export", () => {
    const outputs = Object.entries(
      template.findOutputs("*") as Record<string, { Description?: string; Export?: object }>,
    );
    const ours = outputs.filter(([, { Export }]) => !Export);
    expect(ours.length).toBeGreaterThan(8);
    for (const [key, { Description = "" }] of ours) {
      const output = parseOutput(Description);
      expect(output && outputKey(output), key).toBe(key);
    }
    const said = ours.map(([, { Description }]) => Description);
    expect(new Set(said).size).toBe(said.length);
  });

  test("every alarm says what to do, and where the pipeline is given a topic it reaches it, itself or through a composite alarm", () => {
    const composites = resourcesOf(template, /^AWS::CloudWatch::CompositeAlarm$/);
    const alarms = resourcesOf(template, /^AWS::CloudWatch::Alarm$/);
    const hasTopic = name !== "minimal";
    expect(alarms.length).toBeGreaterThan(15);
    for (const [id, { Type, Properties }] of [...alarms, ...composites]) {
      expect(Properties.AlarmDescription, id).toMatch(/ What to do: \S.{20,}/);
      // A composite alarm without an action is a state to look at: what it names rings itself.
      if (!hasTopic || Type === "AWS::CloudWatch::CompositeAlarm") continue;
      const through = composites.some(
        ([, composite]) =>
          composite.Properties.AlarmActions &&
          joined(composite.Properties.AlarmRule).includes(`ALARM("${joined(Properties.AlarmName)}")`),
      );
      expect([id, through || Properties.AlarmActions?.length > 0]).toEqual([id, true]);
    }
  });

  test("sizes are below the limits of AWS", () => {
    // https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
    const whole = template.toJSON() as { Resources: object; Outputs: object };
    expect(Object.keys(whole.Resources).length).toBeLessThanOrEqual(500);
    expect(Object.keys(whole.Outputs).length).toBeLessThanOrEqual(200);
    expect(Buffer.byteLength(JSON.stringify(whole, undefined, 1))).toBeLessThan(1024 * 1024);
    // https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html: all inline policies of a role together.
    const inline = new Map<string, number>();
    for (const [, { Properties }] of resourcesOf(template, /^AWS::IAM::Policy$/)) {
      for (const role of Properties.Roles as unknown[]) {
        const of = JSON.stringify(role);
        inline.set(of, (inline.get(of) ?? 0) + written(Properties.PolicyDocument).length);
      }
    }
    for (const [role, length] of inline) expect(length, role).toBeLessThan(10_240);
    // https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_limits.html
    for (const { widgets } of dashboardsOf(template)) {
      expect(widgets.length).toBeLessThanOrEqual(500);
      const metrics = widgets.map(({ properties }) => properties.metrics?.length ?? 0);
      expect(Math.max(...metrics)).toBeLessThanOrEqual(500);
      expect(metrics.reduce((sum, count) => sum + count, 0)).toBeLessThanOrEqual(2500);
      for (const { properties } of widgets) expect(properties.alarms?.length ?? 0).toBeLessThanOrEqual(100);
    }
    for (const [id, { Properties }] of resourcesOf(template, /^AWS::CloudWatch::(Composite)?Alarm$/)) {
      expect(joined(Properties.AlarmName).length, id).toBeLessThanOrEqual(255);
      expect(joined(Properties.AlarmDescription).length, id).toBeLessThanOrEqual(1024);
      if (Properties.AlarmRule) expect(joined(Properties.AlarmRule).length, id).toBeLessThanOrEqual(10_240);
    }
    for (const [id, { Properties }] of resourcesOf(template, /^AWS::Lambda::Function$/)) {
      expect((Properties.Description ?? "").length, id).toBeLessThanOrEqual(256);
      const variables = Object.entries((Properties.Environment?.Variables ?? {}) as Record<string, unknown>);
      const known = variables.map(([name, value]) => [
        name,
        typeof value === "string" ? value : "r".repeat(200),
      ]);
      expect(environmentBytes(Object.fromEntries(known)), id).toBeLessThan(MAX_ENVIRONMENT_BYTES);
    }
    // https://docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html: rules of a security group, each way.
    const rules = new Map<string, number>();
    for (const [, { Type, Properties }] of resourcesOf(template, /^AWS::EC2::SecurityGroup(In|E)gress$/)) {
      const group = `${Type} ${JSON.stringify(Properties.GroupId)}`;
      rules.set(group, (rules.get(group) ?? 0) + 1);
    }
    for (const [group, count] of rules) expect(count, group).toBeLessThan(60);
    // https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html: consumers of a stream with a fan-out of their own.
    expect(resourcesOf(template, /^AWS::Kinesis::StreamConsumer$/).length).toBeLessThanOrEqual(20);
  });
});

test("no two stacks of one account give a resource the same name", () => {
  const { production, staging } = neighbours();
  const named = [production, staging].flatMap(({ template }) =>
    resourcesOf(template).flatMap(([, { Type, Properties }]) =>
      [
        "AlarmName",
        "DashboardName",
        "ConsumerName",
        "FunctionName",
        "QueueName",
        "TableName",
        "BucketName",
        "RoleName",
        "LogGroupName",
      ]
        .filter((name) => typeof Properties?.[name] === "string" || Properties?.[name]?.["Fn::Join"])
        .map((name) => `${Type} ${joined(Properties[name])}`),
    ),
  );
  const twice = named.filter(
    (name, index) => named.indexOf(name) !== index && !name.includes("r".repeat(40)),
  );
  expect(named.length).toBeGreaterThan(40);
  expect(twice).toEqual([]);
});
