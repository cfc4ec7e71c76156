import { Duration, RemovalPolicy } from "aws-cdk-lib";
import type * as iam from "aws-cdk-lib/aws-iam";
import type * as kms from "aws-cdk-lib/aws-kms";
import type * as lambda from "aws-cdk-lib/aws-lambda";
import * as s3 from "aws-cdk-lib/aws-s3";
import { Construct } from "constructs";
import { parkedPath } from "../../lib/change/claim-store.ts";
import { allow, allowKey, allowObjects } from "./grants.ts";
import { acknowledge } from "./nag.ts";

/** Props of `ClaimBucket`. */
export interface ClaimBucketProps {
  /** Retention of the stream: no pointer in it may outlive its object. */
  readonly streamRetentionHours: number;
  readonly encryptionKey: kms.IKey;
  readonly removalPolicy: RemovalPolicy;
  /** Used instead of a bucket of our own. */
  readonly existing?: s3.IBucket | undefined;
}

/** Dead letters stay this long in their queue, the longest that SQS can. */
export const DEAD_LETTER_RETENTION = Duration.days(14);
/** Time to act on a parked change after that: its durable copy is here where it is large. */
const PARKING_LIFETIME = Duration.days(76);
/** https://docs.aws.amazon.com/lambda/latest/dg/kinesis-on-failure-destination.html */
const DISCARDED_PREFIX = "aws/lambda/";
/** Ours: objects of the capture task, and those that consumers park. */
export const CLAIM_PREFIX = "changes/";

/**
 * The bucket of what is too large elsewhere: changes above the stream's record limit, large parked changes, and whatever
 * Lambda's event source mappings discard (with their settings: only records that expired in the stream).
 */
export class ClaimBucket extends Construct {
  readonly bucket: s3.IBucket;
  /** Value of `TRIBUTARY_CLAIM_BUCKET`. */
  readonly url: string;
  readonly #key: kms.IKey | undefined;

  constructor(scope: Construct, id: string, props: ClaimBucketProps) {
    super(scope, id);
    this.bucket = props.existing ?? this.#own(props);
    this.#key = props.existing ? props.existing.encryptionKey : props.encryptionKey;
    this.url = `s3://${this.bucket.bucketName}/${CLAIM_PREFIX.slice(0, -1)}`;
  }

  #own(props: ClaimBucketProps): s3.Bucket {
    const bucket = new s3.Bucket(this, "Bucket", {
      encryption: s3.BucketEncryption.KMS,
      encryptionKey: props.encryptionKey,
      bucketKeyEnabled: true,
      blockPublicAccess: s3.BlockPublicAccess.BLOCK_ALL,
      objectOwnership: s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
      enforceSSL: true,
      lifecycleRules: [
        {
          id: "beyond-stream-dead-letters-and-parking",
          expiration: Duration.days(lifetimeDays(props.streamRetentionHours)),
          abortIncompleteMultipartUploadAfter: Duration.days(1),
        },
      ],
      removalPolicy: props.removalPolicy,
      // S3 deletes no bucket that has objects: where the data goes with the stack, CDK's provider refuses writes and empties it first.
      autoDeleteObjects: props.removalPolicy === RemovalPolicy.DESTROY,
    });
    acknowledge(
      bucket,
      "AwsSolutions-S1",
      "Only the pipeline's own roles reach the bucket; who wants its reads on record turns on CloudTrail's data events, which need no second bucket.",
    );
    return bucket;
  }

  /** The capture task stores claims, and reads what it stored of held topics. Without ListBucket a missing object looks forbidden. */
  grantStore(grantee: iam.IGrantable, pipeline: string): void {
    allowObjects(grantee, ["s3:PutObject", "s3:GetObject"], this.bucket, `${CLAIM_PREFIX}${pipeline}/`);
    allow(grantee, ["s3:ListBucket"], [this.bucket.bucketArn]);
    allowKey(grantee, ["kms:GenerateDataKey", "kms:Decrypt"], this.#key);
  }

  /**
   * A consumer reads all claims, as it reads the whole stream, and stores the large changes that it parks below a prefix of its own.
   * Without ListBucket a missing object looks forbidden.
   */
  grantConsumer(grantee: iam.IGrantable, pipeline: string, consumer: string): void {
    allowObjects(grantee, ["s3:GetObject"], this.bucket, `${CLAIM_PREFIX}${pipeline}/`);
    allowObjects(grantee, ["s3:PutObject"], this.bucket, `${CLAIM_PREFIX}${parkedPath(pipeline, consumer)}/`);
    allow(grantee, ["s3:ListBucket"], [this.bucket.bucketArn]);
    allowKey(grantee, ["kms:GenerateDataKey", "kms:Decrypt"], this.#key);
  }

  /** The destination of what an event source mapping discards; Lambda writes it with the function's role. */
  asOnFailureDestination(): lambda.IEventSourceDlq {
    return {
      bind: (_mapping, handler) => {
        allowObjects(handler, ["s3:PutObject"], this.bucket, DISCARDED_PREFIX);
        allow(handler, ["s3:ListBucket"], [this.bucket.bucketArn]);
        allowKey(handler, ["kms:GenerateDataKey"], this.#key);
        return { destination: this.bucket.bucketArn };
      },
    };
  }
}

/** Days from a change's storing to the end of every place a pointer to it may stand in, one after the other. */
export function lifetimeDays(streamRetentionHours: number): number {
  return Math.ceil(streamRetentionHours / 24 + DEAD_LETTER_RETENTION.toDays() + PARKING_LIFETIME.toDays());
}
