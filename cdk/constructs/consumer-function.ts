import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { ArnFormat, type Duration, type RemovalPolicy, Size, Stack, Token } from "aws-cdk-lib";
import type * as ec2 from "aws-cdk-lib/aws-ec2";
import * as iam from "aws-cdk-lib/aws-iam";
import type * as kms from "aws-cdk-lib/aws-kms";
import * as lambda from "aws-cdk-lib/aws-lambda";
import * as nodejs from "aws-cdk-lib/aws-lambda-nodejs";
import type * as logs from "aws-cdk-lib/aws-logs";
import { Construct } from "constructs";
import { environmentBytes, MAX_ENVIRONMENT_BYTES } from "../../lib/aws/lambda-limits.ts";
import { STACK_VARIABLE } from "../../lib/change/printed-command.ts";
import { ConfigurationError } from "../../lib/change/tributary-error.ts";
import { CLAIM_BUCKET_VARIABLE } from "../../lib/claim-check/open-claim-store.ts";
import type { ConsumerDefinition, Pipeline } from "../../lib/definition/definition.ts";
import { topicVariables } from "../../lib/definition/topic-variables.ts";
import { STAGE_VARIABLE } from "../../lib/telemetry/stage.ts";
import type { AutomaticRedriveSettings } from "./automatic-redrive-settings.ts";
import type { ClaimBucket } from "./claim-bucket.ts";
import type { DeadLetterQueue } from "./dead-letter-queue.ts";
import { FUNCTION_BUNDLING } from "./function-bundling.ts";
import { chosenBundling, type FunctionSettings } from "./function-settings.ts";
import { acknowledgeWildcard, allow } from "./grants.ts";
import { findLockFile } from "./lock-file.ts";
import { type LogSettings, logGroup } from "./log-groups.ts";
import { selectSubnets } from "./network.ts";
import type { PipelineEndpoints } from "./pipeline-endpoints.ts";
import type { StateTable } from "./state-table.ts";

/** Settings of one consumer beside its definition. */
export interface ConsumerSettings extends FunctionSettings {
  /** Environment variables of the handler. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Permissions that the sink needs. Set them here rather than by grants on the function, because redrive needs them too. */
  readonly policies?: readonly iam.PolicyStatement[];
  /** VPC of the sink, if it is in one. */
  readonly vpc?: ec2.IVpc;
  /** Subnets of the functions in that VPC. Default: private subnets with a NAT, else isolated ones. */
  readonly vpcSubnets?: ec2.SubnetSelection;
  /** Security groups of the functions in that VPC. Default: a new one for each function; let it into the sink through the function's `connections`. */
  readonly securityGroups?: ec2.ISecurityGroup[];
  /** How isolated subnets reach AWS services, if `vpc` is not the pipeline's VPC. */
  readonly endpoints?: "existing" | PipelineEndpoints;
  /** Dedicated read throughput (2 MB/s per shard) and lower latency, at extra cost. Default false. */
  readonly enhancedFanOut?: boolean;
  /** Automatic redrive. Default none: run `tributary redrive`, or invoke the redrive function yourself. */
  readonly redrive?: AutomaticRedriveSettings;
  /** How long its logs, and those of its redrive, are kept. Default: the pipeline's `logRetention`. */
  readonly logRetention?: logs.RetentionDays;
  /** Key that encrypts its logs and those of its redrive. Default: the pipeline's `logEncryptionKey`. */
  readonly logEncryptionKey?: kms.IKey;
  /** X-Ray tracing. Default false. */
  readonly tracing?: boolean;
}

/** Props of `ConsumerFunction`. */
export interface ConsumerFunctionProps {
  readonly definition: Pipeline;
  readonly consumer: ConsumerDefinition;
  /** A dimension of its metrics. */
  readonly stage: string;
  readonly settings: ConsumerSettings;
  /** Entry files are relative to it; its lock file is found from here too. */
  readonly projectRoot: string;
  readonly stateTable: StateTable;
  readonly claimBucket: ClaimBucket;
  readonly deadLetterQueue: DeadLetterQueue;
  readonly timeout: Duration;
  readonly description: string;
  /** Set for the function that redrives: the bundle of another one has no code for it. */
  readonly redrives?: true;
  readonly logRetention: logs.RetentionDays;
  readonly logEncryptionKey?: kms.IKey | undefined;
  readonly removalPolicy: RemovalPolicy;
}

/**
 * A Lambda function with a consumer's handler, its environment and what it needs beside the stream: the consumer
 * itself, and its redrive. A role of its own that reaches its own resources only.
 */
export class ConsumerFunction extends Construct {
  readonly function: nodejs.NodejsFunction;
  /** Its variables. */
  readonly environment: Readonly<Record<string, string>>;
  readonly logGroup: logs.LogGroup;

  constructor(scope: Construct, id: string, props: ConsumerFunctionProps) {
    super(scope, id);
    const { definition, consumer, settings, projectRoot, stateTable, claimBucket, deadLetterQueue } = props;
    this.logGroup = logGroup(this, logSettings(props));
    const role = new iam.Role(this, "Role", { assumedBy: new iam.ServicePrincipal("lambda.amazonaws.com") });
    allow(role, ["logs:CreateLogStream", "logs:PutLogEvents"], [this.logGroup.logGroupArn]);
    const { vpc, vpcSubnets, securityGroups } = settings;
    if (vpc) {
      this.#allowInterfaces(role);
    }
    for (const statement of settings.policies ?? []) role.addToPolicy(statement);
    const environment = {
      // Lambda's Node trusts RDS's authorities only when told so.
      NODE_EXTRA_CA_CERTS: "/var/runtime/ca-cert.pem",
      // Stacks in the log and in dead letters name files and lines of the handlers' sources.
      NODE_OPTIONS: "--enable-source-maps",
      ...consumerEnvironment(definition, consumer),
      TRIBUTARY_STATE_TABLE: stateTable.table.tableName,
      TRIBUTARY_DEAD_LETTER_QUEUE_URL: deadLetterQueue.queue.queueUrl,
      [CLAIM_BUCKET_VARIABLE]: claimBucket.url,
      [STACK_VARIABLE]: Stack.of(this).stackName,
      [STAGE_VARIABLE]: props.stage,
      ...settings.environment,
    };
    checkEnvironment(consumer.name, environment);
    this.environment = environment;
    this.function = new nodejs.NodejsFunction(this, "Function", {
      description: props.description,
      entry: entryFile(consumer, projectRoot),
      projectRoot,
      depsLockFilePath: findLockFile(resolve(projectRoot)),
      runtime: lambda.Runtime.NODEJS_24_X,
      architecture: lambda.Architecture.ARM_64,
      memorySize: consumer.memoryMB,
      timeout: props.timeout,
      tracing: settings.tracing ? lambda.Tracing.ACTIVE : lambda.Tracing.DISABLED,
      logGroup: this.logGroup,
      loggingFormat: lambda.LoggingFormat.TEXT,
      role,
      environment,
      ...(settings.layers?.length ? { layers: [...settings.layers] } : {}),
      ...(settings.ephemeralStorageMiB
        ? { ephemeralStorageSize: Size.mebibytes(settings.ephemeralStorageMiB) }
        : {}),
      // Redrive has time: it takes what the account has.
      ...(settings.reservedConcurrency && !props.redrives
        ? { reservedConcurrentExecutions: settings.reservedConcurrency }
        : {}),
      ...(vpc
        ? {
            vpc,
            vpcSubnets: { subnets: selectSubnets(`consumers.${consumer.name}`, { vpc, vpcSubnets }).subnets },
            ...(securityGroups ? { securityGroups } : {}),
          }
        : {}),
      bundling: {
        ...FUNCTION_BUNDLING,
        ...chosenBundling(settings.bundling, props.redrives),
      },
    });
    if (settings.tracing) {
      acknowledgeWildcard(
        role,
        "X-Ray's actions for segments know no resources: https://docs.aws.amazon.com/service-authorization/latest/reference/list_awsx-ray.html",
        "Resource::*",
      );
    }
    stateTable.grantConsumer(role, definition.name, consumer.name);
    claimBucket.grantConsumer(role, definition.name, consumer.name);
    deadLetterQueue.grantSend(role);
  }

  /**
   * Lambda makes and removes a function's network interfaces with its role; the function's own code may not. AWS's policy for it
   * would let every function write to every log of the account.
   * https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html
   */
  #allowInterfaces(role: iam.Role): void {
    allow(role, INTERFACE_ACTIONS, ["*"]);
    const functions = Stack.of(this).formatArn({
      service: "lambda",
      resource: "function",
      resourceName: "*",
      arnFormat: ArnFormat.COLON_RESOURCE_NAME,
    });
    role.addToPolicy(
      new iam.PolicyStatement({
        effect: iam.Effect.DENY,
        actions: INTERFACE_ACTIONS,
        resources: ["*"],
        conditions: { ArnLike: { "lambda:SourceFunctionArn": functions } },
      }),
    );
    acknowledgeWildcard(
      role,
      "Interfaces that Lambda makes have no names before: its documentation asks for all resources. The function's own code is denied them.",
      "Resource::*",
    );
  }
}

/** https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html */
const INTERFACE_ACTIONS = [
  "ec2:AssignPrivateIpAddresses",
  "ec2:CreateNetworkInterface",
  "ec2:DeleteNetworkInterface",
  "ec2:DescribeNetworkInterfaces",
  "ec2:DescribeSubnets",
  "ec2:UnassignPrivateIpAddresses",
];

/** Returns how a consumer's logs are kept. */
export function logSettings(
  props: LogSettings & { readonly settings: Pick<ConsumerSettings, "logRetention" | "logEncryptionKey"> },
): LogSettings {
  const { settings, removalPolicy } = props;
  return {
    logRetention: settings.logRetention ?? props.logRetention,
    logEncryptionKey: settings.logEncryptionKey ?? props.logEncryptionKey,
    removalPolicy,
  };
}

/** Returns the file of a consumer. @throws ConfigurationError where there is none. */
export function entryFile({ name, entry }: ConsumerDefinition, projectRoot: string): string {
  const file = resolve(projectRoot, entry);
  if (existsSync(file)) return file;
  const remedy = `name a file that exists (looked for ${file}); projectRoot of CdcPipeline names the folder that entries are relative to`;
  throw new ConfigurationError("The pipeline's stack", [
    { path: `consumers.${name}.entry`, value: entry, remedy },
  ]);
}

/** Stands for a value that is known only at deployment, as long as the longest of them: the URL of a queue. */
const UNKNOWN_VALUE = "x".repeat(200);

/** Finds at synthesis what CloudFormation would find in the middle of a deployment. */
function checkEnvironment(consumer: string, variables: Readonly<Record<string, string>>): void {
  const known = Object.entries(variables).map(
    ([name, value]) => [name, Token.isUnresolved(value) ? UNKNOWN_VALUE : value] as const,
  );
  const bytes = environmentBytes(Object.fromEntries(known));
  if (bytes <= MAX_ENVIRONMENT_BYTES) return;
  throw new ConfigurationError("The pipeline's stack", [
    {
      path: `consumers.${consumer}.environment`,
      value: Object.keys(variables).join(", "),
      remedy: `Lambda takes ${MAX_ENVIRONMENT_BYTES} bytes of variables, and these have about ${bytes}: keep long values in Parameter Store or S3, and topics in fewer patterns`,
    },
  ]);
}

/** Returns the variables that the local host sets too. */
function consumerEnvironment(definition: Pipeline, consumer: ConsumerDefinition): Record<string, string> {
  return {
    TRIBUTARY_PIPELINE_NAME: definition.name,
    TRIBUTARY_ATTEMPTS: String(consumer.attempts),
    TRIBUTARY_POISON: consumer.poison,
    ...(consumer.logErrors && { TRIBUTARY_LOG_ERRORS: "true" }),
    ...topicVariables(consumer.topics),
    TRIBUTARY_RETENTION_HOURS: String(definition.stream.retentionHours),
  };
}
