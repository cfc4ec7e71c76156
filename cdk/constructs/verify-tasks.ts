import { Annotations, Stack } from "aws-cdk-lib";
import * as ec2 from "aws-cdk-lib/aws-ec2";
import type * as ecs from "aws-cdk-lib/aws-ecs";
import { Construct } from "constructs";
import { STACK_VARIABLE } from "../../lib/change/printed-command.ts";
import type { Pipeline } from "../../lib/definition/definition.ts";
import { sourceKind } from "../../lib/source/index.ts";
import type { CaptureService, CaptureSettings } from "./capture-service.ts";
import type { Consumer } from "./consumer.ts";
import { type ConsumerSettings, entryFile } from "./consumer-function.ts";
import { isSameVpc } from "./network.ts";
import { exportsSink } from "./sink-code.ts";
import type { DatabaseAccess } from "./source-database.ts";
import type { StateTable } from "./state-table.ts";
import { VerifyTask } from "./verify-task.ts";

/** Props of `VerifyTasks`. */
export interface VerifyTasksProps {
  readonly definition: Pipeline;
  /** Entry files are relative to it. */
  readonly projectRoot: string;
  readonly settingsOf: (consumer: string) => ConsumerSettings;
  readonly consumers: readonly Consumer[];
  /** The first slot's. */
  readonly capture: CaptureService;
  readonly captureSettings: CaptureSettings;
  /** Of the capture task. */
  readonly vpc: ec2.IVpc;
  readonly access: DatabaseAccess;
  readonly stateTable: StateTable;
}

/** A `VerifyTask` for each consumer whose entry file exports a sink, and nothing where none does. */
export class VerifyTasks extends Construct {
  /** By the consumer's name. */
  readonly taskDefinitions: ReadonlyMap<string, ecs.FargateTaskDefinition>;

  constructor(scope: Construct, id: string, props: VerifyTasksProps) {
    super(scope, id);
    const { definition, vpc, settingsOf, capture, captureSettings, access, stateTable } = props;
    let out: ec2.ISecurityGroup | undefined;
    const wayOut = () => {
      out ??= new ec2.SecurityGroup(this, "WayOut", {
        vpc,
        description: `Tributary ${definition.name}: to sinks that are in no VPC, for verify`,
        allowAllOutbound: true,
      });
      return out;
    };
    const made = new Map<string, ecs.FargateTaskDefinition>();
    for (const consumer of definition.consumers) {
      const entry = entryFile(consumer, props.projectRoot);
      const settings = settingsOf(consumer.name);
      const deployed = props.consumers.find(({ name }) => name === consumer.name);
      // Only a log has positions that a probe can be held against.
      if (!deployed || !sourceKind(definition.source).throughSlots || !exportsSink(entry, settings.bundling))
        continue;
      if (settings.vpc && !isSameVpc(settings.vpc, vpc)) {
        Annotations.of(this).addInfoV2(
          "tributary:verify-elsewhere",
          `The consumer ${consumer.name} is in another VPC than the capture task: tributary verify has no --remote for it.`,
        );
        continue;
      }
      const { externalModules = [], esbuildArgs } = settings.bundling ?? {};
      if (externalModules.length > 0 || esbuildArgs) {
        Annotations.of(this).addInfoV2(
          `tributary:verify-bundling-${consumer.name}`,
          `The consumer ${consumer.name} is bundled with externalModules or esbuildArgs, which the capture image does not have or know: tributary verify has no --remote for it.`,
        );
        continue;
      }
      const { taskDefinition } = new VerifyTask(this, consumer.name, {
        pipeline: definition.name,
        ...{ consumer: deployed, entry, settings, capture, access, stateTable, wayOut },
        captureSettings,
        environment: {
          TRIBUTARY_STATE_TABLE: stateTable.table.tableName,
          [STACK_VARIABLE]: Stack.of(this).stackName,
        },
      });
      made.set(consumer.name, taskDefinition);
    }
    this.taskDefinitions = made;
  }
}
