import { Duration, type RemovalPolicy, Stack } from "aws-cdk-lib";
import type * as iam from "aws-cdk-lib/aws-iam";
import * as kinesis from "aws-cdk-lib/aws-kinesis";
import type * as kms from "aws-cdk-lib/aws-kms";
import { Construct } from "constructs";
import type { Pipeline } from "../../lib/definition/definition.ts";
import { allow, allowKey } from "./grants.ts";
import { acknowledge } from "./nag.ts";

/** Props of `ChangeStream`. */
export interface ChangeStreamProps {
  /** `stream` of the pipeline definition. */
  readonly definition: Pipeline["stream"];
  /** MiB a second that it takes from the beginning on. */
  readonly warmMiBps?: number | undefined;
  readonly encryptionKey: kms.IKey;
  readonly removalPolicy: RemovalPolicy;
  /** Used instead of a stream of our own. */
  readonly existing?: kinesis.IStream | undefined;
}

const MIB = 1024 * 1024;

/** The Kinesis stream that carries the changes, encrypted with a KMS key. */
export class ChangeStream extends Construct {
  readonly stream: kinesis.IStream;
  readonly retention: Duration;
  readonly #key: kms.IKey | undefined;

  constructor(scope: Construct, id: string, props: ChangeStreamProps) {
    super(scope, id);
    this.retention = Duration.hours(props.definition.retentionHours);
    this.stream = props.existing ?? this.#own(props);
    this.#key = props.existing ? props.existing.encryptionKey : props.encryptionKey;
  }

  #own({ definition, encryptionKey, removalPolicy, warmMiBps }: ChangeStreamProps): kinesis.Stream {
    const stream = new kinesis.Stream(this, "Stream", {
      ...(definition.mode === "provisioned"
        ? { streamMode: kinesis.StreamMode.PROVISIONED, shardCount: definition.shards ?? 1 }
        : { streamMode: kinesis.StreamMode.ON_DEMAND }),
      retentionPeriod: this.retention,
      encryption: kinesis.StreamEncryption.KMS,
      encryptionKey,
      removalPolicy,
    });
    acknowledge(
      stream,
      "AwsSolutions-KDS3",
      "A customer's own key says who may read the stream; the aws/kinesis key cannot, nor across accounts.",
    );
    if (definition.maxRecordBytes > MIB) {
      // https://docs.aws.amazon.com/streams/latest/dev/large-records.html
      const resource = stream.node.defaultChild as kinesis.CfnStream;
      resource.maxRecordSizeInKiB = Math.ceil(definition.maxRecordBytes / 1024);
    }
    if (warmMiBps !== undefined) {
      // CDK's Stream has no prop for it yet.
      (stream.node.defaultChild as kinesis.CfnStream).warmThroughputMiBps = warmMiBps;
    }
    return stream;
  }

  /** The capture task writes, into each shard once in a while, and reads what a task that died has left, and where a new consumer begins in its past. */
  grantWrite(grantee: iam.IGrantable): void {
    allow(
      grantee,
      [
        "kinesis:DescribeStreamSummary",
        "kinesis:GetRecords",
        "kinesis:GetShardIterator",
        "kinesis:ListShards",
        "kinesis:PutRecords",
      ],
      [this.stream.streamArn],
    );
    allowKey(grantee, ["kms:Decrypt", "kms:GenerateDataKey"], this.#key);
  }

  /**
   * An event source mapping reads with the function's role; through `consumer`, where it has a fan-out of its own.
   * https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-create.html#events-kinesis-permissions
   */
  grantRead(grantee: iam.IGrantable, consumer?: kinesis.IStreamConsumer): void {
    allow(
      grantee,
      [
        "kinesis:DescribeStream",
        "kinesis:DescribeStreamSummary",
        "kinesis:GetRecords",
        "kinesis:GetShardIterator",
        "kinesis:ListShards",
      ],
      [this.stream.streamArn],
    );
    if (consumer) {
      allow(
        grantee,
        ["kinesis:SubscribeToShard", "kinesis:DescribeStreamConsumer"],
        [consumer.streamConsumerArn],
      );
    }
    allowKey(grantee, ["kms:Decrypt"], this.#key);
  }

  /** A consumer's own 2 MB/s a shard, instead of a share of it. */
  addFanOut(scope: Construct, id: string, name: string): kinesis.StreamConsumer {
    return new kinesis.StreamConsumer(scope, id, {
      stream: this.stream,
      streamConsumerName: `${Stack.of(this).stackName}-${name}`.slice(-128),
    });
  }
}
