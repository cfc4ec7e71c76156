import { Names, type RemovalPolicy, Stack } from "aws-cdk-lib";
import * as iam from "aws-cdk-lib/aws-iam";
import type * as kms from "aws-cdk-lib/aws-kms";
import type * as logs from "aws-cdk-lib/aws-logs";
import * as customResources from "aws-cdk-lib/custom-resources";
import { Construct, type IConstruct } from "constructs";
import { deployedKey } from "../../lib/state/state-key.ts";
import { underKeys } from "./grants.ts";
import { logGroup } from "./log-groups.ts";
import { acknowledge } from "./nag.ts";
import type { StateTable } from "./state-table.ts";

/** Props of `DeploymentMark`. */
export interface DeploymentMarkProps {
  readonly pipeline: string;
  readonly stateTable: StateTable;
  readonly logRetention: logs.RetentionDays;
  readonly logEncryptionKey?: kms.IKey | undefined;
  readonly removalPolicy: RemovalPolicy;
  /** Everything that must stand before: the mark is the stack's last resource. */
  readonly after: readonly IConstruct[];
}

/**
 * An item of the state table that is written when all else is deployed. The capture task waits for it before it makes its
 * slot: a first deploy that fails, at whatever resource, is rolled back without having made one.
 */
export class DeploymentMark extends Construct {
  /**
   * The mark without what the provider of all custom resources of the stack needs (its log group): what a custom resource of the app's own
   * stands before must not have the provider wait for it.
   */
  readonly resource: Construct;

  constructor(scope: Construct, id: string, props: DeploymentMarkProps) {
    super(scope, id);
    const { pk, sk } = deployedKey(props.pipeline);
    const { encryptionKey } = props.stateTable;
    const TableName = props.stateTable.table.tableName;
    const put: customResources.AwsSdkCall = {
      service: "DynamoDB",
      action: "PutItem",
      parameters: { TableName, Item: { pk: { S: pk }, sk: { S: sk } } },
      physicalResourceId: customResources.PhysicalResourceId.of(`${Names.uniqueId(this)}-${props.pipeline}`),
    };
    const mark = new customResources.AwsCustomResource(this, "Resource", {
      onCreate: put,
      // A table that was replaced or restored gets it again.
      onUpdate: put,
      policy: customResources.AwsCustomResourcePolicy.fromStatements([
        new iam.PolicyStatement({
          actions: ["dynamodb:PutItem"],
          resources: [props.stateTable.table.tableArn],
          conditions: underKeys([pk]),
        }),
        ...(encryptionKey
          ? [
              new iam.PolicyStatement({
                actions: ["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey"],
                resources: [encryptionKey.keyArn],
              }),
            ]
          : []),
      ]),
      installLatestAwsSdk: false,
      // Left to itself, Lambda makes one that never ends and stays behind.
      logGroup: logGroup(this, props),
    });
    mark.node.addDependency(...props.after);
    this.resource = mark;
    acknowledgeProvider(this);
  }
}

/** CDK's one function for all custom resources of this kind in a stack. */
function acknowledgeProvider(scope: Construct): void {
  const provider = Stack.of(scope).node.tryFindChild(
    `AWS${customResources.AwsCustomResource.PROVIDER_FUNCTION_UUID.replaceAll("-", "")}`,
  );
  if (!provider) return;
  acknowledge(
    provider,
    "AwsSolutions-IAM4",
    "CDK's own provider writes its log with it; it can do nothing else but what this stack's statements name.",
    "service-role/AWSLambdaBasicExecutionRole",
  );
  acknowledge(provider, "AwsSolutions-L1", "CDK chooses the runtime of its own provider.");
}
