import { extname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import type { RemovalPolicy } from "aws-cdk-lib";
import * as events from "aws-cdk-lib/aws-events";
import * as targets from "aws-cdk-lib/aws-events-targets";
import * as iam from "aws-cdk-lib/aws-iam";
import type * as kms from "aws-cdk-lib/aws-kms";
import * as lambda from "aws-cdk-lib/aws-lambda";
import * as nodejs from "aws-cdk-lib/aws-lambda-nodejs";
import type * as logs from "aws-cdk-lib/aws-logs";
import * as sqs from "aws-cdk-lib/aws-sqs";
import { Construct } from "constructs";
import type { AutomaticRedriveSettings } from "./automatic-redrive-settings.ts";
import { DEAD_LETTER_RETENTION } from "./claim-bucket.ts";
import type { DeadLetterQueue } from "./dead-letter-queue.ts";
import { FUNCTION_BUNDLING } from "./function-bundling.ts";
import { allow } from "./grants.ts";
import { findLockFile } from "./lock-file.ts";
import { logGroup } from "./log-groups.ts";
import { REDRIVE_TIMEOUT, type Redrive } from "./redrive.ts";

/** Props of `AutomaticRedrive`. */
export interface AutomaticRedriveProps {
  readonly consumer: string;
  readonly settings: AutomaticRedriveSettings;
  readonly redrive: Redrive;
  readonly deadLetterQueue: DeadLetterQueue;
  readonly projectRoot: string;
  readonly encryptionKey: kms.IKey;
  readonly logRetention: logs.RetentionDays;
  readonly logEncryptionKey?: kms.IKey | undefined;
  readonly removalPolicy: RemovalPolicy;
}

const ENTRY = fileURLToPath(
  new URL(`../../functions/redrive${extname(import.meta.filename)}`, import.meta.url),
);
/** A letter that cannot be redriven goes back among the dead ones after so many tries. */
const TRIES = 3;

/**
 * A small function that asks the consumer's redrive function (functions/redrive.ts), for letters of a queue and by the clock.
 * It may invoke that one function, and no more.
 */
export class AutomaticRedrive extends Construct {
  readonly function: lambda.Function;
  /** Queue to which dead letters are moved. */
  readonly queue: sqs.Queue | undefined;

  constructor(scope: Construct, id: string, props: AutomaticRedriveProps) {
    super(scope, id);
    const { consumer, settings, redrive, projectRoot } = props;
    const log = logGroup(this, props);
    const role = new iam.Role(this, "Role", { assumedBy: new iam.ServicePrincipal("lambda.amazonaws.com") });
    allow(role, ["logs:CreateLogStream", "logs:PutLogEvents"], [log.logGroupArn]);
    allow(role, ["lambda:InvokeFunction"], [redrive.function.functionArn]);
    this.function = new nodejs.NodejsFunction(this, "Function", {
      description: `Tributary: asks for redrive of ${consumer}`,
      entry: ENTRY,
      projectRoot,
      depsLockFilePath: findLockFile(resolve(projectRoot)),
      runtime: lambda.Runtime.NODEJS_24_X,
      architecture: lambda.Architecture.ARM_64,
      memorySize: 256,
      // It waits for the other one.
      timeout: REDRIVE_TIMEOUT,
      logGroup: log,
      loggingFormat: lambda.LoggingFormat.TEXT,
      role,
      environment: { TRIBUTARY_REDRIVE_FUNCTION: redrive.function.functionName },
      bundling: FUNCTION_BUNDLING,
    });
    this.queue = settings.queue ? this.#letterQueue(props, role) : undefined;
    if (settings.every) {
      new events.Rule(this, "Schedule", {
        description: `Redrive of ${consumer}`,
        schedule: events.Schedule.rate(settings.every),
        // The next one comes by the clock.
        targets: [new targets.LambdaFunction(this.function, { retryAttempts: 0 })],
      });
    }
  }

  #letterQueue(
    { encryptionKey, deadLetterQueue, removalPolicy }: AutomaticRedriveProps,
    role: iam.Role,
  ): sqs.Queue {
    const queue = new sqs.Queue(this, "Queue", {
      encryption: sqs.QueueEncryption.KMS,
      encryptionMasterKey: encryptionKey,
      enforceSSL: true,
      retentionPeriod: DEAD_LETTER_RETENTION,
      maxMessageSizeBytes: deadLetterQueue.largestMessageBytes,
      visibilityTimeout: REDRIVE_TIMEOUT,
      // Back to where it came from: it is counted and alarmed on there.
      deadLetterQueue: { queue: deadLetterQueue.queue, maxReceiveCount: TRIES },
      removalPolicy,
    });
    allow(role, ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"], [queue.queueArn]);
    allow(role, ["kms:Decrypt"], [encryptionKey.keyArn]);
    new lambda.EventSourceMapping(this, "Mapping", {
      target: this.function,
      eventSourceArn: queue.queueArn,
      // A redrive may take all the time there is.
      batchSize: 1,
      maxConcurrency: 2,
      reportBatchItemFailures: true,
    }).node.addDependency(role);
    return queue;
  }
}
