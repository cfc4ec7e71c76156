import { Duration, type RemovalPolicy, Stack, Token } from "aws-cdk-lib";
import * as ec2 from "aws-cdk-lib/aws-ec2";
import * as ecs from "aws-cdk-lib/aws-ecs";
import type * as kms from "aws-cdk-lib/aws-kms";
import type * as logs from "aws-cdk-lib/aws-logs";
import { RegionInfo } from "aws-cdk-lib/region-info";
import { Construct } from "constructs";
import { ConfigurationError } from "../../lib/change/tributary-error.ts";
import type { Pipeline } from "../../lib/definition/definition.ts";
import { OPERATE_VARIABLE } from "../../lib/definition/remote-program.ts";
import { sourceKind } from "../../lib/source/index.ts";
import { SLOT_VARIABLE } from "../../lib/source/postgres/slots/slot-number.ts";
import { HEALTH_FILE_VARIABLE } from "../../lib/telemetry/health.ts";
import {
  APP_DIRECTORY,
  architectureOf,
  type CaptureArchitecture,
  captureImage,
  namedImage,
} from "./capture-image.ts";
import { type PinnedAuthorities, rdsAuthorities } from "./certificate-authorities.ts";
import { acknowledgeWildcard } from "./grants.ts";
import { AUTHORITIES, DATABASE_AUTHORITY, RDS_AUTHORITIES } from "./image-context.ts";
import { logGroup } from "./log-groups.ts";
import { acknowledge } from "./nag.ts";
import { selectSubnets } from "./network.ts";
import {
  allowToDatabase,
  type DatabaseAccess,
  databaseEnvironment,
  databaseFacts,
  grantSignIn,
  letIntoDatabase,
} from "./source-database.ts";

/** Optional settings of the capture task. */
export interface CaptureSettings {
  /** Fargate CPU units; 1024 is one vCPU. Default 1024. */
  readonly cpu?: number;
  /** Memory of the task in MiB. A large change needs about twice its size. Default 2048. */
  readonly memoryMiB?: number;
  /** CPU architecture of the task and of its image. Default `arm64`. */
  readonly architecture?: CaptureArchitecture;
  /**
   * A prebuilt image, of this version and for `architecture`: a CDK `ContainerImage`, or its full name. The task may pull it from a private
   * ECR repository; one in another account must allow that in its policy. Default: built from this project at deploy.
   */
  readonly image?: ecs.ContainerImage | string;
  /**
   * Full name of a Node base image in your own registry, for machines that cannot reach ECR Public. It must have the same version of Node
   * on Alpine Linux. The machine that builds pulls it. Default: the image in the Dockerfile, by digest.
   */
  readonly baseImage?: string;
  /** A pinned bundle of RDS's certificate authorities. Default: the bundle of the stack's partition, downloaded from AWS while the image is built. */
  readonly rdsAuthorities?: PinnedAuthorities;
  /**
   * Up to five security groups for the task, instead of a new one. They must allow outbound traffic on port 443, and to the database if CDK
   * does not know the database's security groups. Groups that CDK knows get a rule for them.
   */
  readonly securityGroups?: readonly ec2.ISecurityGroup[];
  /** More environment variables. They override those that the construct sets. */
  readonly environment?: Readonly<Record<string, string>>;
}

/** Props of `CaptureService`. */
export interface CaptureServiceProps {
  readonly definition: Pipeline;
  readonly vpc: ec2.IVpc;
  readonly vpcSubnets?: ec2.SubnetSelection | undefined;
  readonly cluster?: ecs.ICluster | undefined;
  readonly access: DatabaseAccess;
  readonly settings: CaptureSettings;
  /** Names of what the task writes to. */
  readonly environment: Readonly<Record<string, string>>;
  readonly logRetention: logs.RetentionDays;
  readonly logEncryptionKey?: kms.IKey | undefined;
  readonly removalPolicy: RemovalPolicy;
  /** For a further slot of the pipeline (`source.slots`): its number, and the first one's service, whose ways it shares. */
  readonly further?: { readonly slot: number; readonly first: CaptureService } | undefined;
}

/** Longer than the task needs to store and confirm what it has read, on a bad day; Fargate allows 120. */
const STOP_TIMEOUT = Duration.seconds(120);
/** As the Dockerfile makes it: the one place that can be written. */
export const HEALTH_DIRECTORY = "/run/tributary";
/** Above it V8 would rather collect than grow; the rest of the memory is buffers. */
const HEAP_SHARE = 0.6;

/**
 * The task that reads a slot of PostgreSQL's log: one, never two at work (a second would only wait for it), on Fargate,
 * without root and with a read-only root file system.
 */
export class CaptureService extends Construct implements ec2.IConnectable {
  readonly service: ecs.FargateService;
  readonly taskDefinition: ecs.FargateTaskDefinition;
  readonly logGroup: logs.LogGroup;
  readonly connections: ec2.Connections;
  /** The number of the slot that it reads; 1 where there is one, or none. */
  readonly slot: number;
  readonly image: ecs.ContainerImage;
  /** Variables that lead a program of the image to its database. */
  readonly databaseEnvironment: Readonly<Record<string, string>>;

  constructor(scope: Construct, id: string, props: CaptureServiceProps) {
    super(scope, id);
    const { definition, vpc, settings, access, further } = props;
    this.slot = further?.slot ?? 1;
    const subnets = selectSubnets("capture", { vpc, vpcSubnets: props.vpcSubnets });
    this.connections = further?.first.connections ?? this.#connections(props);

    this.logGroup = logGroup(this, props);
    const memoryMiB = settings.memoryMiB ?? 2048;
    this.taskDefinition = new ecs.FargateTaskDefinition(this, "Task", {
      cpu: settings.cpu ?? 1024,
      memoryLimitMiB: memoryMiB,
      ...(further && {
        taskRole: further.first.taskDefinition.taskRole,
        executionRole: further.first.taskDefinition.obtainExecutionRole(),
      }),
      runtimePlatform: {
        cpuArchitecture: architectureOf(settings.architecture).cpu,
        operatingSystemFamily: ecs.OperatingSystemFamily.LINUX,
      },
    });
    const linuxParameters = new ecs.LinuxParameters(this, "Linux", { initProcessEnabled: true });
    linuxParameters.dropCapabilities(ecs.Capability.ALL);
    // Of the root file system nothing can be written: the health file has a volume of its own. Its owner and mode come
    // from the image: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/bind-mounts.html
    this.taskDefinition.addVolume({ name: "health" });
    this.image = further?.first.image ?? this.#image(props);
    this.databaseEnvironment = { ...databaseEnvironment(access), ...authorityEnvironment(access) };
    const container = this.taskDefinition.addContainer("capture", {
      image: this.image,
      environment: {
        ...this.databaseEnvironment,
        ...props.environment,
        TRIBUTARY_PIPELINE: `${APP_DIRECTORY}/pipeline.mjs`,
        // Says that the image can run verbs.
        [OPERATE_VARIABLE]: "true",
        [HEALTH_FILE_VARIABLE]: `${HEALTH_DIRECTORY}/alive`,
        ...(further && { [SLOT_VARIABLE]: String(this.slot) }),
        NODE_OPTIONS: `--max-old-space-size=${Math.floor(memoryMiB * HEAP_SHARE)}`,
        ...settings.environment,
      },
      user: "1000:1000",
      readonlyRootFilesystem: true,
      linuxParameters,
      stopTimeout: STOP_TIMEOUT,
      healthCheck: {
        // Whether the process answers: lag, a lost connection or a full stream are no reason to start anew.
        command: ["CMD", "node", `${APP_DIRECTORY}/health.mjs`],
        interval: Duration.seconds(30),
        timeout: Duration.seconds(10),
        retries: 3,
        startPeriod: Duration.seconds(60),
      },
      logging: ecs.LogDrivers.awsLogs({ streamPrefix: "capture", logGroup: this.logGroup }),
    });
    container.addMountPoints({ sourceVolume: "health", containerPath: HEALTH_DIRECTORY, readOnly: false });
    acknowledge(
      this.taskDefinition,
      "AwsSolutions-ECS2",
      "They name places and modes; no secret is among them: the program asks Secrets Manager or signs a token itself.",
    );
    if (!further && this.taskDefinition.executionRole) {
      acknowledgeWildcard(
        this.taskDefinition.executionRole,
        "ecr:GetAuthorizationToken knows no resources: https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonelasticcontainerregistry.html",
        "Resource::*",
      );
    }
    if (!further) grantSignIn(this, this.taskDefinition.taskRole, access);

    const cluster = props.cluster ?? further?.first.service.cluster ?? this.#ownCluster(vpc);
    this.service = new ecs.FargateService(this, "Service", {
      cluster,
      taskDefinition: this.taskDefinition,
      ...(sourceKind(definition.source).reading.by === "lanes"
        ? // Tasks share their lanes: while one is replaced the other has them all.
          { desiredCount: 2, minHealthyPercent: 50, maxHealthyPercent: 100 }
        : // The old task confirms and goes before the new one begins: two would fight for the slot.
          { desiredCount: 1, minHealthyPercent: 0, maxHealthyPercent: 100 }),
      // A first deploy that does not come up is rolled back, an upgrade goes back to what ran before.
      circuitBreaker: { enable: true, rollback: true },
      securityGroups: this.connections.securityGroups,
      vpcSubnets: { subnets: subnets.subnets },
      assignPublicIp: subnets.hasPublic,
      enableExecuteCommand: false,
      propagateTags: ecs.PropagatedTagSource.SERVICE,
    });
  }

  #image({ definition, settings, access }: CaptureServiceProps): ecs.ContainerImage {
    const { image, baseImage, architecture } = settings;
    const { certificateAuthorityFile, isRds } = databaseFacts(access.database);
    const fetches = isRds && certificateAuthorityFile === undefined;
    const unused = (path: string, why: string) => {
      throw new ConfigurationError("CdcPipeline", [
        { path: `capture.${path}`, value: "given", remedy: `leave it out: ${why}` },
      ]);
    };
    for (const path of ["baseImage", "rdsAuthorities"] as const)
      if (image && settings[path]) unused(path, "capture.image names an image that is built already");
    if (settings.rdsAuthorities && !fetches)
      unused("rdsAuthorities", "the database is not RDS's, or certificateAuthorityFile names its authority");
    if (typeof image === "string") return namedImage(this, image);
    if (image) return image;
    // A stack without a region, and a region that CDK does not know yet, are taken for commercial ones.
    const { region } = Stack.of(this);
    const partition = Token.isUnresolved(region) ? undefined : RegionInfo.get(region).partition;
    return captureImage(this, {
      ...{ definition, architecture, baseImage, certificateAuthorityFile },
      rdsAuthorities: fetches ? rdsAuthorities(partition ?? "aws", settings.rdsAuthorities) : undefined,
    });
  }

  #connections(props: CaptureServiceProps): ec2.Connections {
    const { securityGroups } = props.settings;
    if (!securityGroups) return this.#ownSecurityGroup(props).connections;
    checkSecurityGroups(securityGroups);
    const connections = new ec2.Connections({ securityGroups: [...securityGroups] });
    letIntoDatabase(connections, props.access.database);
    return connections;
  }

  #ownSecurityGroup({ definition, vpc, access }: CaptureServiceProps): ec2.ISecurityGroup {
    const securityGroup = new ec2.SecurityGroup(this, "SecurityGroup", {
      vpc,
      description: `Tributary capture task of ${definition.name}`,
      allowAllOutbound: false,
    });
    securityGroup.addEgressRule(ec2.Peer.anyIpv4(), ec2.Port.tcp(443), "AWS services");
    allowToDatabase(securityGroup, access.database);
    return securityGroup;
  }

  #ownCluster(vpc: ec2.IVpc): ecs.Cluster {
    const cluster = new ecs.Cluster(this, "Cluster", {
      vpc,
      containerInsightsV2: ecs.ContainerInsights.DISABLED,
    });
    acknowledge(
      cluster,
      "AwsSolutions-ECS4",
      "One task, whose own metrics, starts, CPU and memory are on the dashboard and alarmed on without Container Insights, which bills each of its metrics; who wants it gives a cluster that has it.",
    );
    return cluster;
  }
}

/** https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_AwsVpcConfiguration.html */
const MOST_SECURITY_GROUPS = 5;

function checkSecurityGroups(given: readonly ec2.ISecurityGroup[]): void {
  if (given.length > 0 && given.length <= MOST_SECURITY_GROUPS) return;
  const remedy = `give one to ${MOST_SECURITY_GROUPS} groups, or leave it out for one that is made`;
  throw new ConfigurationError("CdcPipeline", [
    { path: "capture.securityGroups", value: `${given.length} groups`, remedy },
  ]);
}

function authorityEnvironment({ database }: DatabaseAccess): Record<string, string> {
  const { isRds, certificateAuthorityFile } = databaseFacts(database);
  if (certificateAuthorityFile)
    return { TRIBUTARY_TLS_CA_FILE: `${APP_DIRECTORY}/${AUTHORITIES}/${DATABASE_AUTHORITY}` };
  return isRds ? { TRIBUTARY_TLS_CA_FILE: `${APP_DIRECTORY}/${AUTHORITIES}/${RDS_AUTHORITIES}` } : {};
}
