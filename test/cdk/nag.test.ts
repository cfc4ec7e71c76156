import { App, Stack } from "aws-cdk-lib";
import { Template } from "aws-cdk-lib/assertions";
import * as iam from "aws-cdk-lib/aws-iam";
import * as customResources from "aws-cdk-lib/custom-resources";
import { expect, test } from "vitest";
import { CdcPipeline } from "../../cdk/constructs/cdc-pipeline.ts";
import { acknowledge } from "../../cdk/constructs/nag.ts";
import { basics, definition, findings, synthesize } from "./stacks.ts";

/* Answers to both versions of cdk-nag that are in use; the stacks of safety.test.ts are clean under both as well. */

const traced = synthesize((stack) => {
  const common = basics(stack);
  return {
    ...common,
    definition: definition(),
    consumers: { "customer-view": { tracing: true }, notifications: { tracing: true, vpc: common.vpc } },
  };
});

interface Statement {
  readonly Action: string | readonly string[];
  readonly Resource: unknown;
}

test("with tracing on cdk-nag finds nothing", () => {
  expect(findings(traced)).toEqual([]);
});

// https://docs.aws.amazon.com/lambda/latest/dg/services-xray.html
test("each traced function, its redrive too, may write its segments, and is traced", () => {
  const roles = Object.values(traced.template.findResources("AWS::IAM::Policy")).flatMap(({ Properties }) => {
    const { PolicyDocument, Roles } = Properties as {
      PolicyDocument: { Statement: readonly Statement[] };
      Roles: readonly { Ref: string }[];
    };
    const wide = PolicyDocument.Statement.filter(({ Resource }) => Resource === "*");
    const actions = wide.flatMap(({ Action }) => Action).filter((action) => action.startsWith("xray:"));
    return actions.length > 0 ? [[Roles[0]?.Ref.replace(/[0-9A-F]{8}$/, ""), actions]] : [];
  });
  const segments = ["xray:PutTraceSegments", "xray:PutTelemetryRecords"];
  expect(roles.sort()).toEqual(
    [
      "customerviewHandler",
      "customerviewRedriveHandler",
      "notificationsHandler",
      "notificationsRedriveHandler",
    ].map((name) => [`PipelineConsumer${name}Role`, segments]),
  );
  const modes = Object.values(traced.template.findResources("AWS::Lambda::Function")).map(
    ({ Properties }) => (Properties as { TracingConfig?: { Mode: string } }).TracingConfig?.Mode,
  );
  expect(modes.filter((mode) => mode === "Active")).toHaveLength(4);
});

test("what nobody has answered is found by both versions, and an answer is for its own ending alone", () => {
  const bucket = "arn:aws:s3:::reports";
  const found = synthesize((stack) => {
    const role = new iam.Role(stack, "Role", { assumedBy: new iam.ServicePrincipal("lambda.amazonaws.com") });
    for (const place of ["answered", "open"])
      role.addToPolicy(
        new iam.PolicyStatement({ actions: ["s3:GetObject"], resources: [`${bucket}/${place}/*`] }),
      );
    acknowledge(role, "AwsSolutions-IAM5", "names are made at run time", "/answered/*");
    return { ...basics(stack), definition: definition({ consumers: [] }) };
  });
  const [third, second, ...others] = findings(found);
  expect(others).toEqual([]);
  expect(third).toBe(`Test/Role/DefaultPolicy/Resource: AwsSolutions-IAM5[Resource::${bucket}/open/*]`);
  expect(second).toContain(`AwsSolutions-IAM5[Resource::${bucket}/open/*]`);
});

test("a custom resource of the app's own can stand before the mark: nothing waits in a circle", () => {
  const app = new App({ context: { "aws:cdk:bundling-stacks": [] } });
  const stack = new Stack(app, "Test");
  const { deployed } = new CdcPipeline(stack, "Pipeline", {
    ...basics(stack),
    definition: definition({ consumers: [] }),
  });
  // After the pipeline: the provider of both has the log group that the pipeline gave it.
  const own = new customResources.AwsCustomResource(stack, "Own", {
    onCreate: {
      ...{ service: "S3", action: "HeadBucket", parameters: { Bucket: "reports" } },
      physicalResourceId: customResources.PhysicalResourceId.of("own"),
    },
    policy: customResources.AwsCustomResourcePolicy.fromSdkCalls({ resources: ["arn:aws:s3:::reports"] }),
  });
  deployed.node.addDependency(own);
  // Refuses a template whose resources wait for each other.
  const template = Template.fromStack(stack);
  const marks = Object.entries(template.findResources("Custom::AWS"));
  const [, mark] = marks.find(([id]) => id.startsWith("PipelineDeployed")) ?? [];
  expect(mark?.DependsOn).toEqual(expect.arrayContaining([expect.stringMatching(/^Own/)]));
});
