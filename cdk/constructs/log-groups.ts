import { Annotations, ArnFormat, type RemovalPolicy, Stack } from "aws-cdk-lib";
import * as iam from "aws-cdk-lib/aws-iam";
import type * as kms from "aws-cdk-lib/aws-kms";
import * as logs from "aws-cdk-lib/aws-logs";
import type { Construct } from "constructs";
import { ConfigurationError } from "../../lib/change/tributary-error.ts";

/** How a log is kept. */
export interface LogSettings {
  readonly logRetention: logs.RetentionDays;
  /** Omit for the encryption that CloudWatch Logs has by itself. */
  readonly logEncryptionKey?: kms.IKey | undefined;
  readonly removalPolicy: RemovalPolicy;
}

/** Makes a log group, with the id `Logs`. */
export function logGroup(scope: Construct, settings: LogSettings): logs.LogGroup {
  const { logRetention, logEncryptionKey, removalPolicy } = settings;
  return new logs.LogGroup(scope, "Logs", {
    retention: logRetention,
    removalPolicy,
    ...(logEncryptionKey && { encryptionKey: logEncryptionKey }),
  });
}

/**
 * Has the policies of keys let CloudWatch Logs use them for logs of the account; says of a key that was made elsewhere that its policy must.
 * https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/encrypt-log-data-kms.html
 *
 * @throws ConfigurationError for an alias: CloudWatch Logs takes the ARN of a key alone.
 */
export function allowLogs(scope: Construct, keys: ReadonlyMap<string, kms.IKey>): void {
  const aliases = [...keys].filter(([, key]) => "aliasName" in key);
  if (aliases.length > 0) {
    throw new ConfigurationError(
      "CdcPipeline",
      aliases.map(([path, key]) => ({
        path,
        value: (key as kms.IAlias).aliasName,
        remedy: "name the key itself (kms.Key.fromKeyArn): CloudWatch Logs takes no alias",
      })),
    );
  }
  const stack = Stack.of(scope);
  const service = `logs.${stack.region}.${stack.urlSuffix}`;
  const groups = stack.formatArn({
    service: "logs",
    resource: "log-group",
    resourceName: "*",
    arnFormat: ArnFormat.COLON_RESOURCE_NAME,
  });
  const seen = new Set<kms.IKey>();
  for (const [path, key] of keys) {
    if (seen.has(key)) continue;
    seen.add(key);
    const { statementAdded } = key.addToResourcePolicy(
      new iam.PolicyStatement({
        sid: "CloudWatchLogs",
        principals: [new iam.ServicePrincipal(service)],
        actions: ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:Describe*"],
        resources: ["*"],
        conditions: { ArnLike: { "kms:EncryptionContext:aws:logs:arn": groups } },
      }),
      true,
    );
    if (statementAdded) continue;
    Annotations.of(scope).addInfoV2(
      `tributary:log-key-${path}`,
      `${path} was made elsewhere, and this stack cannot change its policy: the policy must let CloudWatch Logs of the region use the key, else the deploy fails at the log groups. https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/encrypt-log-data-kms.html has the statement.`,
    );
  }
}
