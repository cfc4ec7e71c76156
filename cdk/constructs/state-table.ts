import type { RemovalPolicy } from "aws-cdk-lib";
import * as dynamodb from "aws-cdk-lib/aws-dynamodb";
import type * as iam from "aws-cdk-lib/aws-iam";
import type * as kms from "aws-cdk-lib/aws-kms";
import { Construct } from "constructs";
import {
  consumerPartitionKeys,
  pausesPartitionKey,
  pipelinePartitionKeys,
} from "../../lib/state/partition-keys.ts";
import { captureKey } from "../../lib/state/state-key.ts";
import { allow, allowKey, underKeys } from "./grants.ts";

/** Props of `StateTable`. */
export interface StateTableProps {
  readonly warmThroughput?: dynamodb.WarmThroughput | undefined;
  readonly encryptionKey: kms.IKey;
  readonly removalPolicy: RemovalPolicy;
  /** Used instead of a table of our own. */
  readonly existing?: dynamodb.ITable | undefined;
}

/** Attributes of the table's keys, both strings, and the one that says when an item may go. */
export const STATE_TABLE = { partitionKey: "pk", sortKey: "sk", timeToLive: "expiresAt" } as const;

/** Single items, and pages of one partition key: no scans, no batches, no transactions. */
const USE = [
  "dynamodb:GetItem",
  "dynamodb:PutItem",
  "dynamodb:UpdateItem",
  "dynamodb:DeleteItem",
  "dynamodb:Query",
];

/**
 * The one state table: capture lease, confirmed position, fences, parked changes. Losing it loses the memory of what
 * took effect, so the removal policy keeps it, and where somebody deletes it DynamoDB keeps a backup for 35 days. It has no deletion
 * protection: with that, a first deploy that fails cannot be rolled back, since CloudFormation may not delete the table.
 * https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/PointInTimeRecovery_Howitworks.html#howitworks-pitr-deleting-table
 */
export class StateTable extends Construct {
  readonly table: dynamodb.ITable;
  /** The key that the table is encrypted with, where it has one that is known. */
  readonly encryptionKey: kms.IKey | undefined;

  constructor(scope: Construct, id: string, props: StateTableProps) {
    super(scope, id);
    this.table = props.existing ?? this.#own(props);
    this.encryptionKey = props.existing ? props.existing.encryptionKey : props.encryptionKey;
  }

  #own({ encryptionKey, removalPolicy, warmThroughput }: StateTableProps): dynamodb.Table {
    return new dynamodb.Table(this, "Table", {
      partitionKey: { name: STATE_TABLE.partitionKey, type: dynamodb.AttributeType.STRING },
      sortKey: { name: STATE_TABLE.sortKey, type: dynamodb.AttributeType.STRING },
      billingMode: dynamodb.BillingMode.PAY_PER_REQUEST,
      timeToLiveAttribute: STATE_TABLE.timeToLive,
      ...(warmThroughput && { warmThroughput }),
      pointInTimeRecoverySpecification: { pointInTimeRecoveryEnabled: true },
      encryption: dynamodb.TableEncryption.CUSTOMER_MANAGED,
      encryptionKey,
      removalPolicy,
    });
  }

  /** The capture task uses all items of its pipeline: it registers consumers, and runs an operator's verbs. */
  grantCapture(grantee: iam.IGrantable, pipeline: string): void {
    allow(grantee, USE, [this.table.tableArn], underKeys(pipelinePartitionKeys(pipeline)));
    this.#grantKey(grantee);
  }

  /** A consumer and its redrive use the consumer's own items, and read whether it is paused. */
  grantConsumer(grantee: iam.IGrantable, pipeline: string, consumer: string): void {
    allow(grantee, USE, [this.table.tableArn], underKeys(consumerPartitionKeys(pipeline, consumer)));
    allow(grantee, ["dynamodb:GetItem"], [this.table.tableArn], underKeys([pausesPartitionKey(pipeline)]));
    this.#grantKey(grantee);
  }

  /** `tributary verify` reads how far a consumer is, what it has parked, and what capture has on record. */
  grantVerify(grantee: iam.IGrantable, pipeline: string, consumer: string): void {
    const keys = [captureKey(pipeline).pk, ...consumerPartitionKeys(pipeline, consumer)];
    allow(grantee, ["dynamodb:GetItem", "dynamodb:Query"], [this.table.tableArn], underKeys(keys));
    allowKey(grantee, ["kms:Decrypt", "kms:DescribeKey"], this.encryptionKey);
  }

  #grantKey(grantee: iam.IGrantable): void {
    // https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/encryption.usagenotes.html
    allowKey(
      grantee,
      [
        "kms:Decrypt",
        "kms:DescribeKey",
        "kms:Encrypt",
        "kms:GenerateDataKey",
        "kms:ReEncryptFrom",
        "kms:ReEncryptTo",
      ],
      this.encryptionKey,
    );
  }
}
