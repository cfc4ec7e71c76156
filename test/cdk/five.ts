import { Stack } from "aws-cdk-lib";
import * as ec2 from "aws-cdk-lib/aws-ec2";
import * as secretsmanager from "aws-cdk-lib/aws-secretsmanager";
import * as sns from "aws-cdk-lib/aws-sns";
import { CdcPipeline } from "../../cdk/constructs/cdc-pipeline.ts";
import { postgres } from "../../lib/definition/pipeline.ts";
import {
  basics,
  definition,
  ENVIRONMENT,
  full,
  imported,
  minimal,
  newApp,
  type Synthesized,
  synthesize,
  synthesized,
} from "./stacks.ts";

/*
 * The five definitions that every property of a template holds on. Each is synthesized once in a test file, at its first use.
 */

const CONSUMERS = 10;
const SLOTS = 3;
/** Consumers of a shard without a fan-out of their own that are not warned of. */
const SHARING = 2;

let shared: ReturnType<typeof makeNeighbours> | undefined;
let large: Synthesized | undefined;

/**
 * Two pipelines and two stages in one VPC of isolated subnets: the stack Production has the pipelines shop and audit, the stack Staging
 * has shop. All alarms go to topics of their stack.
 */
export function neighbours() {
  shared ??= makeNeighbours();
  return shared;
}

/** Ten consumers and three slots, whose alarms go to a topic. */
export function tenByThree(): Synthesized {
  large ??= synthesize((stack) => ({
    ...basics(stack),
    definition: definition({
      source: postgres({ tables: ["public.*"], slots: SLOTS }),
      consumers: Array.from({ length: CONSUMERS }, (_, index) => ({
        name: consumerName(index),
        entry: "functions/customer-view.ts",
        topics: [`*.public.table_${index}`],
      })),
    }),
    consumers: Object.fromEntries(
      Array.from({ length: CONSUMERS - SHARING }, (_, index) => [
        consumerName(index),
        { enhancedFanOut: true },
      ]),
    ),
    alarmTopic: new sns.Topic(stack, "Topic", { enforceSSL: true }),
  }));
  return large;
}

/** Every stack of the five definitions, for `describe.each`. The app that makes the neighbours' VPC is among them only where it has a pipeline. */
export function everyStack(): [string, Synthesized][] {
  const { production, staging } = neighbours();
  return [
    ["minimal", minimal()],
    ["full", full()],
    ["imported", imported()],
    ["two pipelines and two stages in one VPC: production", production],
    ["two pipelines and two stages in one VPC: staging", staging],
    ["ten consumers and three slots", tenByThree()],
  ];
}

function consumerName(index: number): string {
  return `consumer-${index}`;
}

function makeNeighbours() {
  const app = newApp();
  const network = new Stack(app, "Network", { env: ENVIRONMENT });
  const vpc = new ec2.Vpc(network, "Vpc", {
    maxAzs: 2,
    natGateways: 0,
    subnetConfiguration: [{ name: "data", subnetType: ec2.SubnetType.PRIVATE_ISOLATED }],
  });
  vpc.addFlowLog("Flow");
  const stage = (name: string, pipelines: readonly string[]) => {
    const stack = new Stack(app, name, { env: ENVIRONMENT });
    const { database, databaseName } = { database: { host: `${name}.internal` }, databaseName: "shop" };
    const alarmTopic = new sns.Topic(stack, "Topic", { enforceSSL: true });
    const secret = secretsmanager.Secret.fromSecretCompleteArn(
      stack,
      "CaptureSecret",
      "arn:aws:secretsmanager:eu-central-1:123456789012:secret:capture-AbCdEf",
    );
    const made = pipelines.map(
      (pipeline) =>
        new CdcPipeline(stack, pipeline, {
          definition: definition({ name: pipeline }),
          vpc,
          endpoints: "existing",
          database,
          databaseName,
          secret,
          alarmTopic,
          consumers: { "customer-view": { vpc } },
        }),
    );
    return { stack, made };
  };
  const stages = [stage("Production", ["shop", "audit"]), stage("Staging", ["shop"])] as const;
  const [production, staging] = stages.map(({ stack, made: [first] }) => {
    if (!first) throw new Error("a stage has no pipeline");
    return synthesized(stack, first);
  });
  if (!production || !staging) throw new Error("a stage is missing");
  return { network, production, staging };
}
