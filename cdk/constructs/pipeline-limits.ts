import { CfnResource, Stack } from "aws-cdk-lib";
import { ConfigurationError, type ConfigurationProblem } from "../../lib/change/tributary-error.ts";
import type { Pipeline } from "../../lib/definition/definition.ts";
import type { ConsumerSettings } from "./consumer-function.ts";

/*
 * Limits checked at synth: settings that AWS would reject in the middle of a deploy, or could never serve.
 */

/**
 * Lambda reads each shard once a second for each consumer without a fan-out, and a shard gives five reads a second:
 * https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html
 */
const READERS_OF_A_SHARD = 5;

/**
 * Consumers with a fan-out of their own, which a stream registers; on demand only in the mode On-demand Advantage, of which the stack knows nothing:
 * https://docs.aws.amazon.com/kinesis/latest/APIReference/API_RegisterStreamConsumer.html
 */
const FAN_OUTS = { provisioned: 20, "on-demand": 50 } as const;

/** https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html */
const RESOURCES_OF_A_STACK = 500;

/** https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html */
const ALARMS_OF_A_WIDGET = 100;

/** @throws ConfigurationError where a stream cannot serve so many consumers. */
export function checkReaders(
  { consumers, stream: { mode } }: Pick<Pipeline, "consumers" | "stream">,
  settingsOf: (name: string) => ConsumerSettings,
): void {
  const names = consumers.map(({ name }) => name);
  const fanOuts = names.filter((name) => settingsOf(name).enhancedFanOut);
  const sharing = names.filter((name) => !fanOuts.includes(name));
  const problems: ConfigurationProblem[] = [];
  if (sharing.length > READERS_OF_A_SHARD) {
    problems.push({
      path: "consumers.<name>.enhancedFanOut",
      value: `${sharing.length} consumers without it: ${sharing.join(", ")}`,
      remedy: `they share each shard's ${READERS_OF_A_SHARD} reads a second, and Lambda makes one a second for each: set enhancedFanOut for ${sharing.length - READERS_OF_A_SHARD} or more of them`,
    });
  }
  const most = FAN_OUTS[mode];
  if (fanOuts.length > most) {
    problems.push({
      path: "consumers.<name>.enhancedFanOut",
      value: `${fanOuts.length} consumers with it`,
      remedy: `a stream that is ${mode} registers ${most} at most: leave it out where a delay does no harm, or make two pipelines`,
    });
  }
  if (problems.length > 0) throw new ConfigurationError("CdcPipeline", problems);
}

/**
 * Counts the resources of the stack that a pipeline is in, as they are so far.
 * @throws ConfigurationError where CloudFormation takes no stack of so many.
 */
export function checkResources(stack: Stack): void {
  const count = stack.node
    .findAll()
    .filter((child) => CfnResource.isCfnResource(child) && Stack.of(child) === stack).length;
  if (count <= RESOURCES_OF_A_STACK) return;
  throw new ConfigurationError("CdcPipeline", [
    {
      path: "definition.consumers",
      value: `${count} resources in the stack ${stack.stackName}`,
      remedy: `CloudFormation takes ${RESOURCES_OF_A_STACK}: give each pipeline a stack of its own, put VPC and database into another one, or make two pipelines with a part of the consumers each`,
    },
  ]);
}

/** Returns alarms in parts, each of which an alarm widget of a dashboard takes. */
export function inWidgets<T>(alarms: readonly T[]): T[][] {
  const widgets = Math.ceil(alarms.length / ALARMS_OF_A_WIDGET);
  return Array.from({ length: widgets }, (_, i) =>
    alarms.slice(i * ALARMS_OF_A_WIDGET, (i + 1) * ALARMS_OF_A_WIDGET),
  );
}
