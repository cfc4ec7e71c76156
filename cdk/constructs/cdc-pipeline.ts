import { Annotations, RemovalPolicy, Stack } from "aws-cdk-lib";
import type * as cloudwatch from "aws-cdk-lib/aws-cloudwatch";
import type * as ec2 from "aws-cdk-lib/aws-ec2";
import type * as ecs from "aws-cdk-lib/aws-ecs";
import type * as iam from "aws-cdk-lib/aws-iam";
import * as kms from "aws-cdk-lib/aws-kms";
import * as logs from "aws-cdk-lib/aws-logs";
import type * as secretsmanager from "aws-cdk-lib/aws-secretsmanager";
import type * as sns from "aws-cdk-lib/aws-sns";
import { Construct } from "constructs";
import { CAPTURE_DEAD_LETTER_VARIABLE } from "../../lib/capture/dead-letters.ts";
import { STACK_VARIABLE } from "../../lib/change/printed-command.ts";
import { ConfigurationError } from "../../lib/change/tributary-error.ts";
import { CLAIM_BUCKET_VARIABLE } from "../../lib/claim-check/open-claim-store.ts";
import type { Pipeline } from "../../lib/definition/definition.ts";
import { sourceKind } from "../../lib/source/index.ts";
import { AWAIT_DEPLOYMENT_VARIABLE } from "../../lib/state/deployment.ts";
import { STAGE_VARIABLE } from "../../lib/telemetry/stage.ts";
import { type AlarmTopics, alarmTopics } from "./alarm-actions.ts";
import type { AlarmThresholds } from "./alarm-settings.ts";
import { CaptureService, type CaptureSettings } from "./capture-service.ts";
import { ChangeStream } from "./change-stream.ts";
import { ClaimBucket } from "./claim-bucket.ts";
import { Consumer } from "./consumer.ts";
import type { ConsumerSettings } from "./consumer-function.ts";
import { DeadLetterQueue } from "./dead-letter-queue.ts";
import { DeploymentMark } from "./deployment-mark.ts";
import { allowPreviousKeys, checkKeys, refuseUnreadable, warnOfDeletedKey } from "./encryption-keys.ts";
import { checkExisting, type ExistingResources } from "./existing-resources.ts";
import { checkFunctionSettings, type FunctionSettings } from "./function-settings.ts";
import { allowLogs } from "./log-groups.ts";
import { admit, checkNetwork, type Endpoints, openEndpoints } from "./network.ts";
import { setBoundary } from "./permissions-boundary.ts";
import { PipelineAlarms } from "./pipeline-alarms.ts";
import { PipelineDashboard } from "./pipeline-dashboard.ts";
import type { PipelineEndpoints } from "./pipeline-endpoints.ts";
import { checkReaders, checkResources } from "./pipeline-limits.ts";
import { nameResources } from "./pipeline-outputs.ts";
import { checkDashboardName, consumerSettings, logKeys, projectOfApp, stageOf } from "./pipeline-settings.ts";
import { runbookAddress } from "./runbook.ts";
import { type DatabaseAccess, databaseFacts, type SourceDatabase } from "./source-database.ts";
import { StateTable } from "./state-table.ts";
import { VerifyTasks } from "./verify-tasks.ts";
import { checkWarmThroughput, tableWarmth, type WarmThroughput } from "./warm-throughput.ts";

/** Settings of a deployed pipeline beside its definition: those that differ by place. */
export interface CdcPipelineProps {
  /** The definition, as `definePipeline` returns it. */
  readonly definition: Pipeline;
  /**
   * Folder that the definition's entry files are relative to. Default: the CDK app's project, that is the nearest folder with a
   * package.json at or above the file that Node runs (under a test runner: at or above the working directory).
   */
  readonly projectRoot?: string;

  /** VPC of the capture task. It must reach the database. */
  readonly vpc: ec2.IVpc;
  /** Subnets of the capture task. Default: private subnets with a NAT, else isolated ones. Public subnets are used only if you name them. */
  readonly vpcSubnets?: ec2.SubnetSelection;
  /** How isolated subnets reach AWS services. Needed only for isolated subnets. */
  readonly endpoints?: Endpoints;
  /** ECS cluster of the capture task. Default: a new one. */
  readonly cluster?: ecs.ICluster;
  /** An existing stream, state table or claim bucket to use. Default: the pipeline makes its own. */
  readonly existing?: ExistingResources;

  /** An RDS instance, an Aurora cluster (its writer), or any server by address. Not RDS Proxy. */
  readonly database: SourceDatabase;
  /** Name of the database on that server. */
  readonly databaseName: string;
  /** `secret`: a password in Secrets Manager. `iam`: an RDS token for each connection. Default: `secret`. */
  readonly authentication?: "secret" | "iam";
  /** Secret with `username` and `password` of the capture role (not of the master user). */
  readonly secret?: secretsmanager.ISecret;
  /** Database role of capture with `iam`. Default `tributary`. */
  readonly databaseUser?: string;

  /**
   * Distinguishes this deployment from others of the same pipeline in the account and region; a dimension of every metric. Letters,
   * digits, `.`, `_`, `-`. Default: the stack's name.
   */
  readonly stage?: string;

  /** Settings of each consumer, by its name: what its sink needs. */
  readonly consumers?: Readonly<Record<string, ConsumerSettings>>;
  /** Settings for the functions of all consumers. `consumers.<name>` overrides them; `bundling` is merged field by field. */
  readonly consumerDefaults?: FunctionSettings;
  /** Size, image and variables of the capture task. */
  readonly capture?: CaptureSettings;

  /** Throughput that stream and state table accept from the start, for an expected load. Default: they scale as traffic grows. */
  readonly warmThroughput?: WarmThroughput;
  /** Key that encrypts stream, table, queues and bucket. Default: a new key. A change is refused unless `previousKeys` names the former key. */
  readonly encryptionKey?: kms.IKey;
  /** Former keys of the pipeline. Data stored under them stays readable; nothing new is stored under them. */
  readonly previousKeys?: readonly kms.IKey[];
  /**
   * Name of the dashboard, unique in the account across all regions. Up to 255 letters, digits, `-` and `_`. A change replaces only the
   * dashboard. Default: `<stack>-<pipeline>-<region>`.
   */
  readonly dashboardName?: string;
  /** Thresholds of the alarms. */
  readonly alarms?: AlarmThresholds;
  /** Topic that all alarms notify. Default: none; alarms show in CloudWatch only. */
  readonly alarmTopic?: sns.ITopic;
  /** Topics by severity, instead of `alarmTopic`: `page` wakes somebody up, `ticket` can wait until working hours. */
  readonly alarmTopics?: AlarmTopics;
  /**
   * URL of your own copy of docs/11-operations.md, without an anchor. Alarm descriptions and the dashboard then link to each alarm's
   * entry there. Default: they name `tributary explain <alarm>`.
   */
  readonly runbook?: string;
  /** How long logs are kept. Default: two weeks. */
  readonly logRetention?: logs.RetentionDays;
  /**
   * Key that encrypts all logs; `pipeline`: the key of stream and table. CDK adds CloudWatch Logs to the policy of a key made in this app;
   * for an imported key you add it. Default: the encryption of CloudWatch Logs itself.
   */
  readonly logEncryptionKey?: kms.IKey | "pipeline";
  /** Permissions boundary of all roles, including those of CDK's custom resource functions. Default none. */
  readonly permissionsBoundary?: iam.IManagedPolicy;
  /**
   * Removal policy of stream, state table, bucket, queues and key. Default: they are kept when the stack is deleted, and removed
   * only if the deploy that makes them fails.
   */
  readonly removalPolicy?: RemovalPolicy;
}

/** Consumers that share a shard's 2 MB/s without delay; Lambda polls each shard once a second for each. */
const CONSUMERS_WITHOUT_FAN_OUT = 2;

/**
 * A whole pipeline: PostgreSQL to Kinesis to Lambda, with everything around it, as its definition says.
 *
 * @example
 * new CdcPipeline(stack, "Shop", {
 *   definition,
 *   vpc,
 *   database: instance,
 *   databaseName: "shop",
 *   secret,
 *   consumers: { "order-summary": { environment: { INDEX: domain.domainEndpoint } } },
 * });
 */
export class CdcPipeline extends Construct {
  readonly definition: Pipeline;
  readonly changeStream: ChangeStream;
  readonly stateTable: StateTable;
  readonly claimBucket: ClaimBucket;
  /** The capture service; with `source.slots` the first slot's. */
  readonly capture: CaptureService;
  /** One for each slot. */
  readonly captures: readonly CaptureService[];
  readonly consumers: readonly Consumer[];
  /** The tasks of `tributary verify --remote`, one for each consumer that exports a sink. */
  readonly verifyTasks: VerifyTasks;
  readonly encryptionKey: kms.IKey;
  readonly alarms: readonly cloudwatch.Alarm[];
  /** Rings while an alarm of severity `page` does, and notifies nobody: for a deployment that is to roll back, or an alarm over several pipelines. */
  readonly health: cloudwatch.CompositeAlarm;
  readonly dashboard: PipelineDashboard;
  /** Comes last. What of your own stack must stand before a slot is made: `pipeline.deployed.node.addDependency(it)`. */
  readonly deployed: Construct;
  /** The endpoints that were made, or given: another pipeline of the VPC takes them, `endpoints: pipeline.endpoints`. */
  readonly endpoints: PipelineEndpoints | undefined;
  /** The dead-letter queue of capture, for changes that cannot become events. Only sources that read a log have one. */
  readonly captureDeadLetters: DeadLetterQueue | undefined;

  /** @throws ConfigurationError when something could not work: before anything is deployed. */
  constructor(scope: Construct, id: string, props: CdcPipelineProps) {
    super(scope, id);
    const { definition, vpc, vpcSubnets, existing = {} } = props;
    const kind = sourceKind(definition.source);
    this.definition = definition;
    this.#checkName();
    const removalPolicy = props.removalPolicy ?? RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE;
    const projectRoot = props.projectRoot ?? projectOfApp();
    const stage = stageOf(this, props.stage);
    checkDashboardName(props.dashboardName);
    const settingsOf = consumerSettings(definition, props.consumers ?? {}, props.consumerDefaults);
    const runbook = runbookAddress(props.runbook);
    const placement = { vpc, vpcSubnets };
    checkNetwork(placement, props.endpoints, definition.consumers, settingsOf);
    checkReaders(definition, settingsOf);
    for (const consumer of definition.consumers)
      checkFunctionSettings(this, definition.stream, consumer, settingsOf(consumer.name));
    checkExisting(this, definition, existing);
    const warm = props.warmThroughput ?? {};
    checkWarmThroughput(warm, definition.stream, existing);
    this.#warnOfSharedThroughput(settingsOf);

    const keys = { encryptionKey: props.encryptionKey, previousKeys: props.previousKeys ?? [] };
    checkKeys(keys);
    refuseUnreadable(this, definition.name, keys);
    warnOfDeletedKey(this, keys, removalPolicy);
    this.encryptionKey =
      props.encryptionKey ??
      new kms.Key(this, "Key", {
        description: `Tributary pipeline ${definition.name}`,
        enableKeyRotation: true,
        removalPolicy,
      });
    const logEncryptionKey =
      props.logEncryptionKey === "pipeline" ? this.encryptionKey : props.logEncryptionKey;
    const logging = { logRetention: props.logRetention ?? logs.RetentionDays.TWO_WEEKS, logEncryptionKey };
    allowLogs(this, logKeys(definition, settingsOf, logEncryptionKey));
    const stateful = { encryptionKey: this.encryptionKey, removalPolicy };
    this.changeStream = new ChangeStream(this, "ChangeStream", {
      definition: definition.stream,
      existing: existing.stream,
      warmMiBps: warm.streamMiBps,
      ...stateful,
    });
    this.stateTable = new StateTable(this, "State", {
      existing: existing.stateTable,
      warmThroughput: tableWarmth(warm),
      ...stateful,
    });
    this.claimBucket = new ClaimBucket(this, "Claims", {
      streamRetentionHours: definition.stream.retentionHours,
      existing: existing.claimBucket,
      ...stateful,
    });
    this.consumers = definition.consumers.map(
      (consumer) =>
        new Consumer(this, `Consumer-${consumer.name}`, {
          definition,
          consumer,
          stage,
          settings: settingsOf(consumer.name),
          projectRoot,
          changeStream: this.changeStream,
          stateTable: this.stateTable,
          claimBucket: this.claimBucket,
          ...logging,
          ...stateful,
        }),
    );
    this.captureDeadLetters = kind.can.putAside
      ? new DeadLetterQueue(this, "CaptureDeadLetters", stateful)
      : undefined;
    const access: DatabaseAccess = {
      database: props.database,
      databaseName: props.databaseName,
      user: props.databaseUser ?? "tributary",
      authentication: props.authentication ?? "secret",
      secret: props.secret,
    };
    const capture = {
      definition,
      vpc,
      vpcSubnets,
      cluster: props.cluster,
      access,
      settings: props.capture ?? {},
      environment: {
        TRIBUTARY_STREAM: this.changeStream.stream.streamName,
        TRIBUTARY_STATE_TABLE: this.stateTable.table.tableName,
        [CLAIM_BUCKET_VARIABLE]: this.claimBucket.url,
        ...(this.captureDeadLetters && {
          [CAPTURE_DEAD_LETTER_VARIABLE]: this.captureDeadLetters.queue.queueUrl,
        }),
        [AWAIT_DEPLOYMENT_VARIABLE]: "true",
        [STACK_VARIABLE]: Stack.of(this).stackName,
        [STAGE_VARIABLE]: stage,
      },
      ...logging,
      removalPolicy,
    };
    const first = new CaptureService(this, "Capture", capture);
    this.capture = first;
    const [, ...numbers] = kind.tasks(definition.source);
    const further = numbers.map(
      (slot) => new CaptureService(this, `Capture${slot}`, { ...capture, further: { slot, first } }),
    );
    this.captures = [first, ...further];
    const { taskRole } = this.capture.taskDefinition;
    this.changeStream.grantWrite(taskRole);
    this.stateTable.grantCapture(taskRole, definition.name);
    this.claimBucket.grantStore(taskRole, definition.name);
    this.captureDeadLetters?.grantSend(taskRole);
    this.verifyTasks = new VerifyTasks(this, "Verify", {
      ...{ definition, vpc, settingsOf, access, projectRoot, capture: this.capture },
      ...{ captureSettings: capture.settings, consumers: this.consumers, stateTable: this.stateTable },
    });
    const verifying = [...this.verifyTasks.taskDefinitions.values()].map((task) => task.taskRole);
    const readers = [...this.consumers.flatMap(({ roles }) => roles), ...verifying];
    allowPreviousKeys([taskRole, ...readers], keys.previousKeys);
    this.endpoints = openEndpoints(this, placement, props.endpoints);
    const parts = { placement, capture: this.capture, consumers: this.consumers, settingsOf };
    admit(this.endpoints, parts);
    if (this.endpoints) for (const { service } of this.captures) service.node.addDependency(this.endpoints);
    const database = databaseFacts(props.database);
    const { alarms, health } = new PipelineAlarms(this, "Alarms", {
      stage,
      pipeline: definition.name,
      source: kind,
      captures: this.captures,
      changeStream: this.changeStream,
      consumers: this.consumers,
      captureDeadLetters: this.captureDeadLetters,
      database,
      thresholds: props.alarms ?? {},
      topics: alarmTopics(props.alarmTopic, props.alarmTopics),
      runbook,
    });
    this.alarms = alarms;
    this.health = health;
    this.dashboard = new PipelineDashboard(this, "Dashboard", {
      stage,
      pipeline: definition.name,
      source: kind,
      database,
      captures: this.captures,
      changeStream: this.changeStream,
      stateTable: this.stateTable.table,
      consumers: this.consumers,
      alarms,
      name: props.dashboardName,
      runbook,
    });
    // The task starts when all that it and its readers need stands; the mark, last of all, lets it make its slot.
    for (const { service } of this.captures) {
      service.node.addDependency(this.changeStream, this.stateTable, this.claimBucket, ...this.consumers);
    }
    const mark = new DeploymentMark(this, "Deployed", {
      ...logging,
      removalPolicy,
      pipeline: definition.name,
      stateTable: this.stateTable,
      after: this.node.children,
    });
    this.deployed = mark.resource;

    if (props.permissionsBoundary) setBoundary(this, props.permissionsBoundary);
    nameResources(this, this);
    checkResources(Stack.of(this));
  }

  /** @throws ConfigurationError where another pipeline of the stack has the name: metrics and outputs could not tell them apart. */
  #checkName(): void {
    const stack = Stack.of(this);
    const { name } = this.definition;
    const twin = stack.node
      .findAll()
      .find(
        (other) =>
          other instanceof CdcPipeline &&
          other !== this &&
          Stack.of(other) === stack &&
          other.definition.name === name,
      );
    if (twin === undefined) return;
    throw new ConfigurationError("CdcPipeline", [
      {
        path: "definition.name",
        value: name,
        remedy: `${twin.node.path} has that name in this stack: give each pipeline a name of its own`,
      },
    ]);
  }

  #warnOfSharedThroughput(settingsOf: (name: string) => ConsumerSettings): void {
    const sharing = this.definition.consumers.filter(({ name }) => !settingsOf(name).enhancedFanOut);
    if (sharing.length <= CONSUMERS_WITHOUT_FAN_OUT) return;
    Annotations.of(this).addWarningV2(
      "tributary:shared-throughput",
      `${sharing.length} consumers share each shard's 2 MB/s and 5 reads a second: ${sharing.map(({ name }) => name).join(", ")}. They will lag behind under load; set enhancedFanOut for those that must not.`,
    );
  }
}

export { PipelineEndpoints, type PipelineEndpointsProps } from "./pipeline-endpoints.ts";
