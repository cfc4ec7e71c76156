import type { RemovalPolicy } from "aws-cdk-lib";
import type * as iam from "aws-cdk-lib/aws-iam";
import type * as kms from "aws-cdk-lib/aws-kms";
import * as sqs from "aws-cdk-lib/aws-sqs";
import { Construct } from "constructs";
import { DEAD_LETTER_RETENTION } from "./claim-bucket.ts";
import { allow } from "./grants.ts";
import { acknowledge } from "./nag.ts";

/** Props of `DeadLetterQueue`. */
export interface DeadLetterQueueProps {
  readonly encryptionKey: kms.IKey;
  readonly removalPolicy: RemovalPolicy;
}

/** SQS's limit since 2025: dead letters carry whole events. */
const LARGEST_MESSAGE_BYTES = 1024 * 1024;

/** The queue of the dead letters of one consumer, or of capture: encrypted, TLS only, kept for SQS's longest time. */
export class DeadLetterQueue extends Construct {
  readonly queue: sqs.Queue;
  readonly largestMessageBytes = LARGEST_MESSAGE_BYTES;
  readonly #key: kms.IKey;

  constructor(scope: Construct, id: string, { encryptionKey, removalPolicy }: DeadLetterQueueProps) {
    super(scope, id);
    this.#key = encryptionKey;
    this.queue = new sqs.Queue(this, "Queue", {
      encryption: sqs.QueueEncryption.KMS,
      encryptionMasterKey: encryptionKey,
      enforceSSL: true,
      retentionPeriod: DEAD_LETTER_RETENTION,
      maxMessageSizeBytes: LARGEST_MESSAGE_BYTES,
      removalPolicy,
    });
    acknowledge(
      this.queue,
      "AwsSolutions-SQS3",
      "It is itself a dead-letter queue, of a consumer of the stream or of the capture task.",
    );
  }

  /** The consumer, or the capture task, sends its letters. */
  grantSend(grantee: iam.IGrantable): void {
    allow(grantee, ["sqs:SendMessage"], [this.queue.queueArn]);
    allow(grantee, ["kms:GenerateDataKey", "kms:Decrypt"], [this.#key.keyArn]);
  }
}
