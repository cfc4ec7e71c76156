import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Stack } from "aws-cdk-lib";
import { Match } from "aws-cdk-lib/assertions";
import * as ec2 from "aws-cdk-lib/aws-ec2";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type PipelineInput, postgres } from "../../lib/definition/pipeline.ts";
import {
  basics,
  definition,
  findings,
  full,
  minimal,
  resource,
  type Synthesized,
  synthesize,
} from "./stacks.ts";

interface Statement {
  readonly Action: string | string[];
  readonly Resource: unknown;
}

interface Container {
  readonly Name: string;
  readonly Environment: readonly { readonly Name: string; readonly Value: unknown }[];
  readonly DockerLabels: Readonly<Record<string, unknown>>;
  readonly Command: readonly string[];
  readonly Image: unknown;
}

let shop: Synthesized;
let inVpc: Synthesized;
let project: string;
beforeAll(() => {
  shop = minimal();
  inVpc = full();
  project = mkdtempSync(join(tmpdir(), "tributary-verify-task-"));
  writeFileSync(join(project, "package.json"), "{}");
  writeFileSync(join(project, "package-lock.json"), "{}");
});
afterAll(() => rmSync(project, { recursive: true, force: true }));

/** Actions of a role's statements, each with the types or names in its resource. */
function rights(made: Synthesized, part: string): string[] {
  const { Properties } = resource(made, "AWS::IAM::Policy", part);
  const { Statement: statements } = Properties.PolicyDocument as { readonly Statement: Statement[] };
  return statements
    .map(({ Action, Resource }) => {
      const [, id] = /"(?:Ref|Fn::GetAtt)":\[?"(\w+)"/.exec(JSON.stringify(Resource)) ?? [];
      const named = id === undefined ? undefined : made.template.toJSON().Resources[id]?.Type;
      return `${[Action].flat().join(" ")} on ${named ?? JSON.stringify(Resource)}`;
    })
    .toSorted();
}

function containerOf(made: Synthesized, part: string): Container {
  const { Properties } = resource(made, "AWS::ECS::TaskDefinition", part);
  const [container] = Properties.ContainerDefinitions as Container[];
  return container as Container;
}

function variables(container: Container): Record<string, unknown> {
  return Object.fromEntries(container.Environment.map(({ Name, Value }) => [Name, Value]));
}

describe("the task that verifies a consumer", () => {
  it("may sign in, read the state and its code, and what the sink needs: nothing else", () => {
    const secret = '"arn:aws:secretsmanager:eu-central-1:123456789012:secret:capture-AbCdEf"';
    const object = expect.stringMatching(
      /^s3:GetObject on .*cdk-hnb659fds-assets-[^*]*"$|^s3:GetObject on [^*]*$/,
    );
    expect(rights(shop, "Verifycustomerview")).toEqual([
      "dynamodb:GetItem dynamodb:Query on AWS::DynamoDB::Table",
      "kms:Decrypt kms:DescribeKey on AWS::KMS::Key",
      object,
      `secretsmanager:GetSecretValue on ${secret}`,
    ]);
    expect(rights(inVpc, "Verifycustomerview")).toEqual([
      "dynamodb:GetItem dynamodb:Query on AWS::DynamoDB::Table",
      'dynamodb:PutItem on "arn:aws:dynamodb:eu-central-1:123456789012:table/customers"',
      "kms:Decrypt kms:DescribeKey on AWS::KMS::Key",
      expect.stringMatching(/^rds-db:connect on .*dbuser:db-ABC\/capture"/),
      object,
    ]);
    const { Properties: policy } = resource(shop, "AWS::IAM::Policy", "Verifycustomerview");
    const keys = /"dynamodb:LeadingKeys":(\[.*?\])/.exec(JSON.stringify(policy))?.[1] ?? "";
    expect(JSON.parse(keys)).toEqual([
      ...["shop#capture", "shop#consumer#customer-view", "shop#consumer#customer-view#*"],
    ]);
    const { Properties } = resource(shop, "AWS::IAM::Role", "Verifycustomerview");
    expect(Properties.AssumeRolePolicyDocument).toMatchObject({
      Statement: [{ Action: "sts:AssumeRole", Principal: { Service: "ecs-tasks.amazonaws.com" } }],
    });
    expect(Properties).not.toHaveProperty("ManagedPolicyArns");
    expect([...findings(shop), ...findings(inVpc)].filter((finding) => /[Vv]erify/.test(finding))).toEqual(
      [],
    );
  });

  it("is the capture image with the consumer's code and variables beside the source's", () => {
    const capture = containerOf(inVpc, "Capture");
    const verify = containerOf(inVpc, "Verify");
    expect(verify.Image).toEqual(capture.Image);
    const { TRIBUTARY_SINK_CODE: code, TRIBUTARY_SINK_ENVIRONMENT: own, ...others } = variables(verify);
    expect(JSON.stringify(code)).toMatch(/s3:\/\/.*assets.*\.(ts|mjs)/);
    expect(JSON.stringify(own)).toContain(JSON.stringify('"CUSTOMER_TABLE":"customers"').slice(1, -1));
    expect(JSON.stringify(own)).not.toContain("NODE_EXTRA_CA_CERTS");
    const theirs = variables(capture);
    for (const name of ["PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "TRIBUTARY_TLS", "TRIBUTARY_TLS_CA_FILE"])
      expect([name, others[name]]).toEqual([name, theirs[name]]);
    for (const name of [
      "TRIBUTARY_STATE_TABLE",
      "TRIBUTARY_STACK_NAME",
      "TRIBUTARY_OPERATE",
      "TRIBUTARY_DATABASE_AUTH",
    ])
      expect([name, others[name]]).toEqual([name, theirs[name]]);
    expect(others).not.toHaveProperty("TRIBUTARY_STREAM");
    // Started by mistake it must not capture.
    expect(verify.Command).toEqual(["/app/operate.mjs", "--help"]);
    inVpc.template.hasResourceProperties("AWS::ECS::TaskDefinition", {
      ContainerDefinitions: [
        Match.objectLike({ Name: "verify", ReadonlyRootFilesystem: true, User: "1000:1000" }),
      ],
    });
  });

  it("has the function's way to the sink: its security groups, or a way out where it is in no VPC", () => {
    const label = (made: Synthesized) =>
      JSON.stringify(containerOf(made, "Verify").DockerLabels["tributary.security-groups"]);
    const { Properties } = resource(inVpc, "AWS::Lambda::Function", "customerviewHandlerFunction");
    const { SecurityGroupIds } = Properties.VpcConfig as { readonly SecurityGroupIds: unknown[] };
    expect(label(inVpc)).toContain(JSON.stringify(SecurityGroupIds[0]));
    expect(label(inVpc)).not.toContain("WayOut");
    expect(label(shop)).toContain("WayOut");
  });

  it("is named by an output, and there is none for a consumer that exports no sink", () => {
    const outputs = Object.keys(shop.template.findOutputs("*")).filter((key) => key.includes("Verify"));
    expect(outputs).toEqual(["TributaryShopConsumerCustomerViewVerifyTask"]);
  });
});

/** A stack with a consumer whose entry file has this code. */
function stackOf(code: string, over: Partial<PipelineInput> = {}): Synthesized {
  writeFileSync(join(project, "orders.ts"), code);
  return synthesize((stack) => ({
    ...basics(stack),
    projectRoot: project,
    definition: definition({
      consumers: [{ name: "orders", entry: "orders.ts", topics: ["*"] }],
      source: postgres({ tables: ["public.*"] }),
      ...over,
    }),
  }));
}

function resourcesOf({ template }: Synthesized): [string, { readonly Type: string }][] {
  return Object.entries(template.toJSON().Resources as Record<string, { readonly Type: string }>);
}

describe("a consumer's code", () => {
  it("changes nothing of the capture service when it is edited", () => {
    const before = new Map(resourcesOf(stackOf("export const sink = { table: () => undefined };")));
    const after = resourcesOf(stackOf("export const sink = { table: () => undefined }; // edited"));
    const changed = after.filter(([id, made]) => JSON.stringify(before.get(id)) !== JSON.stringify(made));
    const ids = changed.map(([id]) => id);
    // Its role names the object that it reads.
    expect(ids.filter((id) => id.includes("Verify")).length).toBeGreaterThan(1);
    expect(changed.map(([, { Type }]) => Type)).not.toContain("AWS::ECS::Service");
    expect(ids.filter((id) => id.includes("Capture"))).toEqual([]);
  });

  it("adds no task, role or group where no consumer exports a sink", () => {
    const ids = resourcesOf(stackOf("export const handler = () => {};\nconst sink = 1;")).map(([id]) => id);
    expect(ids.filter((id) => /Verify/.test(id))).toEqual([]);
  });

  it.each([["export { sink } from './other.ts';"], ["export * from './other.ts';"]])(
    "is found to export a sink: %s",
    (code) => {
      writeFileSync(join(project, "other.ts"), "export const sink = {};");
      const ids = resourcesOf(stackOf(code)).map(([id]) => id);
      expect(ids.filter((id) => /Verify/.test(id)).length).toBeGreaterThan(2);
    },
  );

  it("is in a VPC that was imported twice", () => {
    const imported = (stack: Stack, id: string) =>
      ec2.Vpc.fromVpcAttributes(stack, id, {
        vpcId: "vpc-0123456789abcdef0",
        availabilityZones: ["eu-central-1a"],
        privateSubnetIds: ["subnet-0123456789abcdef0"],
      });
    const made = synthesize((stack) => ({
      ...basics(stack),
      vpc: imported(stack, "One"),
      definition: definition(),
      consumers: { "customer-view": { vpc: imported(stack, "Other") } },
    }));
    expect(resourcesOf(made).filter(([id]) => /Verify/.test(id)).length).toBeGreaterThan(1);
  });

  it("has no task where its function is in another VPC: said at synth", () => {
    const made = synthesize((stack) => ({
      ...basics(stack),
      definition: definition(),
      consumers: { "customer-view": { vpc: new ec2.Vpc(stack, "Other", { natGateways: 1 }) } },
    }));
    expect(resourcesOf(made).filter(([id]) => /Verify/.test(id))).toEqual([]);
    const infos = made.annotations.findInfo("*", Match.stringLikeRegexp("customer-view is in another VPC"));
    expect(infos.length).toBe(1);
  });
});
