import { Fn, Stack } from "aws-cdk-lib";
import type * as ec2 from "aws-cdk-lib/aws-ec2";
import * as ecs from "aws-cdk-lib/aws-ecs";
import * as iam from "aws-cdk-lib/aws-iam";
import { Construct } from "constructs";
import {
  OPERATE_VARIABLE,
  SECURITY_GROUPS_LABEL,
  SINK_CODE_VARIABLE,
  SINK_ENVIRONMENT_VARIABLE,
} from "../../lib/definition/remote-program.ts";
import { APP_DIRECTORY, architectureOf } from "./capture-image.ts";
import { type CaptureService, type CaptureSettings, HEALTH_DIRECTORY } from "./capture-service.ts";
import type { Consumer } from "./consumer.ts";
import type { ConsumerSettings } from "./consumer-function.ts";
import { allow } from "./grants.ts";
import { acknowledge } from "./nag.ts";
import { sinkCode } from "./sink-code.ts";
import { type DatabaseAccess, grantSignIn } from "./source-database.ts";
import type { StateTable } from "./state-table.ts";

/** Props of `VerifyTask`. */
export interface VerifyTaskProps {
  /** Name of the pipeline. */
  readonly pipeline: string;
  readonly consumer: Consumer;
  /** The file that exports its `sink`. */
  readonly entry: string;
  readonly settings: ConsumerSettings;
  /** The first slot's: its image, network, execution role and log group are the task's too. */
  readonly capture: CaptureService;
  readonly captureSettings: CaptureSettings;
  readonly access: DatabaseAccess;
  readonly stateTable: StateTable;
  /** Names of the state table and the stack. */
  readonly environment: Readonly<Record<string, string>>;
  /** The way out for a sink that is in no VPC, as its function has it. */
  readonly wayOut: () => ec2.ISecurityGroup;
}

/**
 * The task definition that `tributary verify --remote` runs for one consumer: the capture image, with the code, the variables and the policies
 * of the consumer. Nothing runs of it by itself, and it is apart from the capture service's: a change of the consumer's code restarts nothing. Its role
 * signs in to the database, reads the state table, and may what the sink needs; it can write neither stream nor table.
 */
export class VerifyTask extends Construct {
  readonly taskDefinition: ecs.FargateTaskDefinition;

  constructor(scope: Construct, id: string, props: VerifyTaskProps) {
    super(scope, id);
    const { consumer, settings, capture, captureSettings, access } = props;
    const code = sinkCode(this, props.entry, settings.bundling);
    const taskRole = new iam.Role(this, "Role", {
      assumedBy: new iam.ServicePrincipal("ecs-tasks.amazonaws.com"),
      description: `Tributary: reads what the sink of ${consumer.name} holds, and its source`,
    });
    grantSignIn(this, taskRole, access);
    props.stateTable.grantVerify(taskRole, props.pipeline, consumer.name);
    allow(taskRole, ["s3:GetObject"], [code.bucket.arnForObjects(code.s3ObjectKey)]);
    for (const statement of settings.policies ?? []) taskRole.addToPolicy(statement);

    this.taskDefinition = new ecs.FargateTaskDefinition(this, "Task", {
      cpu: captureSettings.cpu ?? 1024,
      memoryLimitMiB: captureSettings.memoryMiB ?? 2048,
      taskRole,
      executionRole: capture.taskDefinition.obtainExecutionRole(),
      runtimePlatform: {
        cpuArchitecture: architectureOf(captureSettings.architecture).cpu,
        operatingSystemFamily: ecs.OperatingSystemFamily.LINUX,
      },
    });
    const { TRIBUTARY_TLS_CA_FILE: authorities } = capture.databaseEnvironment;
    const linuxParameters = new ecs.LinuxParameters(this, "Linux", { initProcessEnabled: true });
    linuxParameters.dropCapabilities(ecs.Capability.ALL);
    this.taskDefinition.addVolume({ name: "code" });
    const container = this.taskDefinition.addContainer("verify", {
      image: capture.image,
      environment: {
        ...capture.databaseEnvironment,
        ...props.environment,
        TRIBUTARY_PIPELINE: `${APP_DIRECTORY}/pipeline.mjs`,
        [OPERATE_VARIABLE]: "true",
        [SINK_CODE_VARIABLE]: code.s3ObjectUrl,
        [SINK_ENVIRONMENT_VARIABLE]: Stack.of(this).toJsonString(sinkVariables(consumer)),
        // As Lambda's Node is told for the function: RDS's, where the source is RDS's.
        ...(authorities && { NODE_EXTRA_CA_CERTS: authorities }),
        // The sink's code is put there.
        TMPDIR: HEALTH_DIRECTORY,
      },
      dockerLabels: {
        [SECURITY_GROUPS_LABEL]: Fn.join(
          ",",
          securityGroups(props).map(({ securityGroupId }) => securityGroupId),
        ),
      },
      // Not capture: `tributary verify --remote` names the verb.
      command: [`${APP_DIRECTORY}/operate.mjs`, "--help"],
      user: "1000:1000",
      readonlyRootFilesystem: true,
      linuxParameters,
      logging: ecs.LogDrivers.awsLogs({
        streamPrefix: `verify-${consumer.name}`,
        logGroup: capture.logGroup,
      }),
    });
    container.addMountPoints({ sourceVolume: "code", containerPath: HEALTH_DIRECTORY, readOnly: false });
    acknowledge(
      this.taskDefinition,
      "AwsSolutions-ECS2",
      "They name places and modes, and what the consumer's function has: no secret of ours is among them.",
    );
  }
}

/** Lambda's own file of authorities is not in the image. */
function sinkVariables({ environment }: Consumer): Record<string, string> {
  const { NODE_EXTRA_CA_CERTS: _, ...variables } = environment;
  return variables;
}

/** The consumer's own: its sink lets them in. */
function securityGroups({ consumer, settings, wayOut }: VerifyTaskProps): readonly ec2.ISecurityGroup[] {
  return settings.vpc ? consumer.function.connections.securityGroups : [wayOut()];
}
