import { App, Aspects, Duration, Stack } from "aws-cdk-lib";
import { Annotations, Match, Template } from "aws-cdk-lib/assertions";
import * as ec2 from "aws-cdk-lib/aws-ec2";
import * as ecs from "aws-cdk-lib/aws-ecs";
import * as iam from "aws-cdk-lib/aws-iam";
import * as kms from "aws-cdk-lib/aws-kms";
import * as lambda from "aws-cdk-lib/aws-lambda";
import * as logs from "aws-cdk-lib/aws-logs";
import * as rds from "aws-cdk-lib/aws-rds";
import * as secretsmanager from "aws-cdk-lib/aws-secretsmanager";
import * as sns from "aws-cdk-lib/aws-sns";
import { AwsSolutionsChecks } from "cdk-nag";
import { AwsSolutionsChecks as AwsSolutionsChecks2 } from "cdk-nag-2";
import { CdcPipeline, type CdcPipelineProps } from "../../cdk/constructs/cdc-pipeline.ts";
import {
  definePipeline,
  type Pipeline,
  type PipelineInput,
  postgres,
} from "../../lib/definition/pipeline.ts";

/** A stack as it would be deployed. */
export interface Synthesized {
  readonly stack: Stack;
  /** The first one of the stack. */
  readonly pipeline: CdcPipeline;
  readonly template: Template;
  readonly annotations: Annotations;
  /** What cdk-nag 3 finds; what cdk-nag 2 finds is among the annotations. */
  readonly violations: readonly string[];
}

/** Account and region of every stack here. */
export const ENVIRONMENT = { account: "123456789012", region: "eu-central-1" };

/** Synthesizes a stack with both versions of cdk-nag that are in use. */
export function synthesize(build: (stack: Stack) => CdcPipelineProps): Synthesized {
  const app = newApp();
  const stack = new Stack(app, "Test", { env: ENVIRONMENT });
  const pipeline = new CdcPipeline(stack, "Pipeline", build(stack));
  return synthesized(stack, pipeline);
}

/** Returns an app that cdk-nag looks at. Handlers are not bundled: that takes long, and bundle.test.ts looks at it. */
export function newApp(): App {
  const app = new App({
    context: {
      "aws:cdk:bundling-stacks": [],
      // CDK warns of a default that nobody chose.
      "@aws-cdk/core:defaultCrossStackReferences": "strong",
    },
  });
  Aspects.of(app).add(new AwsSolutionsChecks2());
  return app;
}

/** Synthesizes a stack's app, once for all its stacks: make them all before. */
export function synthesized(stack: Stack, pipeline: CdcPipeline): Synthesized {
  const template = Template.fromStack(stack);
  const violations = new AwsSolutionsChecks()
    .validateScope(stack)
    .violations.flatMap(({ ruleName, violatingResources }) =>
      violatingResources.map(({ constructPath }) => `${constructPath}: ${ruleName}`),
    );
  return { stack, pipeline, template, annotations: Annotations.fromStack(stack), violations };
}

/** Makes something at its first call, and gives the same again: a stack takes a second, and tests only read it. */
function once<T>(make: () => T): () => T {
  let made: { readonly it: T } | undefined;
  return () => {
    made ??= { it: make() };
    return made.it;
  };
}

/** A definition of the shop with two consumers, and what is given over it. */
export function definition(over: Partial<PipelineInput> = {}): Pipeline {
  return definePipeline({
    name: "shop",
    source: postgres({ tables: ["public.*"] }),
    consumers: [
      { name: "customer-view", entry: "functions/customer-view.ts", topics: ["*.public.customers"] },
      { name: "notifications", entry: "functions/notifications.ts", topics: ["*.public.cancellations"] },
    ],
    ...over,
  });
}

/** What most stacks have. */
export function basics(stack: Stack) {
  const vpc = new ec2.Vpc(stack, "Vpc", { maxAzs: 2, natGateways: 1 });
  vpc.addFlowLog("Flow");
  const secret = secretsmanager.Secret.fromSecretCompleteArn(
    stack,
    "CaptureSecret",
    "arn:aws:secretsmanager:eu-central-1:123456789012:secret:capture-AbCdEf",
  );
  return { vpc, secret, database: { host: "db.internal" }, databaseName: "shop" };
}

/** As little as a pipeline can be. */
export const minimal = once(() => synthesize((stack) => ({ definition: definition(), ...basics(stack) })));

/** Every choice taken another way. */
export const full = once(() =>
  synthesize((stack) => {
    const isolated = new ec2.Vpc(stack, "Isolated", {
      maxAzs: 2,
      natGateways: 0,
      subnetConfiguration: [{ name: "data", subnetType: ec2.SubnetType.PRIVATE_ISOLATED }],
    });
    isolated.addFlowLog("Flow");
    return {
      definition: definition({
        stream: {
          mode: "provisioned",
          shards: 4,
          retentionHours: 48,
          maxRecordBytes: 4 * 1024 * 1024,
          packing: "none",
        },
        consumers: [
          {
            name: "customer-view",
            entry: "functions/customer-view.ts",
            topics: ["shop.public.customers", "shop.audit.*"],
            batchSize: 500,
            batchWindowSeconds: 2,
            parallelization: 4,
            timeoutSeconds: 120,
            memoryMB: 1024,
            attempts: 5,
            logErrors: true,
            poison: "stop",
          },
          { name: "notifications", entry: "functions/notifications.ts", topics: ["*cancel*"] },
        ],
      }),
      vpc: isolated,
      endpoints: "create",
      database: { host: "shop.abc.eu-central-1.rds.amazonaws.com", port: 5433, resourceId: "db-ABC" },
      databaseName: "shop",
      authentication: "iam",
      databaseUser: "capture",
      consumers: {
        "customer-view": {
          vpc: isolated,
          enhancedFanOut: true,
          logRetention: logs.RetentionDays.ONE_YEAR,
          reservedConcurrency: 20,
          bundling: { loader: { ".sql": "text" }, conditions: ["production"] },
          environment: { CUSTOMER_TABLE: "customers" },
          policies: [
            new iam.PolicyStatement({
              actions: ["dynamodb:PutItem"],
              resources: ["arn:aws:dynamodb:eu-central-1:123456789012:table/customers"],
            }),
          ],
        },
      },
      consumerDefaults: {
        ephemeralStorageMiB: 1024,
        layers: [
          lambda.LayerVersion.fromLayerVersionArn(
            stack,
            "Layer",
            "arn:aws:lambda:eu-central-1:123456789012:layer:certificates:3",
          ),
        ],
        bundling: { define: { "process.env.STAGE": '"production"' }, sourceMap: false },
      },
      logEncryptionKey: "pipeline",
      permissionsBoundary: iam.ManagedPolicy.fromManagedPolicyName(stack, "Boundary", "platform-boundary"),
      dashboardName: "shop-in-full",
      capture: { cpu: 512, memoryMiB: 4096, environment: { TRIBUTARY_LEASE_MS: "20000" } },
      alarms: {
        lagBytes: 256 * 1024 ** 2,
        iteratorAge: Duration.hours(1),
        byName: {
          Throttled: false,
          ReplicationLag: { threshold: 5 * 1024 ** 3, periods: 20 },
          Late: { threshold: Duration.minutes(5), severity: "ticket" },
          "Late-notifications": { threshold: Duration.minutes(90) },
          Errors: { threshold: 10 },
        },
      },
      alarmTopic: new sns.Topic(stack, "Topic", { enforceSSL: true }),
    };
  }),
);

/** Everything exists already, in other stacks or made by hand. */
export const imported = once(() =>
  synthesize((stack) => {
    const vpc = ec2.Vpc.fromVpcAttributes(stack, "Vpc", {
      vpcId: "vpc-0123456789abcdef0",
      availabilityZones: ["eu-central-1a", "eu-central-1b"],
      privateSubnetIds: ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"],
      privateSubnetRouteTableIds: ["rtb-0123456789abcdef0", "rtb-0123456789abcdef1"],
    });
    return {
      definition: definition(),
      vpc,
      cluster: ecs.Cluster.fromClusterAttributes(stack, "Cluster", { clusterName: "shared", vpc }),
      database: rds.DatabaseInstance.fromDatabaseInstanceAttributes(stack, "Database", {
        instanceIdentifier: "shop-db",
        instanceEndpointAddress: "shop-db.abc.eu-central-1.rds.amazonaws.com",
        instanceResourceId: "db-XYZ",
        port: 5432,
        securityGroups: [
          ec2.SecurityGroup.fromSecurityGroupId(stack, "DatabaseGroup", "sg-0123456789abcdef0"),
        ],
      }),
      databaseName: "shop",
      secret: secretsmanager.Secret.fromSecretNameV2(stack, "Secret", "capture"),
      encryptionKey: kms.Key.fromKeyArn(
        stack,
        "Key",
        "arn:aws:kms:eu-central-1:123456789012:key/00000000-0000-0000-0000-000000000001",
      ),
      alarmTopic: sns.Topic.fromTopicArn(stack, "Topic", "arn:aws:sns:eu-central-1:123456789012:alarms"),
    };
  }),
);

/** Findings of cdk-nag and errors of ours, as text. */
export function findings({ annotations, violations }: Synthesized): string[] {
  return [
    ...violations,
    ...[
      ...annotations.findError("*", Match.anyValue()),
      ...annotations.findWarning("*", Match.anyValue()),
    ].map(({ id, entry }) => `${id}: ${String(entry.data)}`),
  ];
}

/** One resource of a type whose logical id contains a text. Those of the tasks that verify are asked for by that word. */
export function resource(
  { template }: Pick<Synthesized, "template">,
  type: string,
  part = "",
): { readonly id: string; readonly Properties: Record<string, unknown>; readonly [key: string]: unknown } {
  const found = Object.entries(template.findResources(type)).filter(
    ([id]) => id.includes(part) && (part.includes("Verify") || !id.includes("Verify")),
  );
  const [first] = found;
  if (!first || found.length > 1) {
    throw new Error(`${found.length} resources of ${type} with "${part}": ${found.map(([id]) => id)}`);
  }
  return { id: first[0], ...(first[1] as { Properties: Record<string, unknown> }) };
}
