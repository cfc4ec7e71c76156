import * as iam from "aws-cdk-lib/aws-iam";
import type * as kms from "aws-cdk-lib/aws-kms";
import type { IBucket } from "aws-cdk-lib/aws-s3";
import { Construct } from "constructs";
import { acknowledge } from "./nag.ts";

/** Permits exactly these actions on exactly these resources: CDK's own grants often carry more than a part needs. */
export function allow(
  grantee: iam.IGrantable,
  actions: string[],
  resourceArns: string[],
  conditions?: Readonly<Record<string, Record<string, unknown>>>,
): void {
  iam.Grant.addToPrincipal({
    grantee,
    actions,
    resourceArns,
    ...(conditions && { conditions }),
  }).assertSuccess();
}

/** Permits the use of the key that a resource is encrypted with; undefined: the resource has none of its own, or CDK does not know it. */
export function allowKey(grantee: iam.IGrantable, actions: string[], key: kms.IKey | undefined): void {
  if (key) allow(grantee, actions, [key.keyArn]);
}

/**
 * The condition that every item of a request to DynamoDB stands under one of these partition keys (`*` for any text).
 * `ForAllValues`: of a request for several items each must match. It holds for no key at all too, hence `Null`.
 * https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/specifying-conditions.html
 * https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-single-vs-multi-valued-context-keys.html
 */
export function underKeys(partitionKeys: readonly string[]): Record<string, Record<string, unknown>> {
  return {
    "ForAllValues:StringLike": { "dynamodb:LeadingKeys": partitionKeys },
    Null: { "dynamodb:LeadingKeys": "false" },
  };
}

/** Permits actions on the objects below a prefix of a bucket, which ends in a slash. */
export function allowObjects(
  grantee: iam.IGrantable,
  actions: string[],
  bucket: IBucket,
  prefix: string,
): void {
  allow(grantee, actions, [bucket.arnForObjects(`${prefix}*`)]);
  acknowledgeWildcard(grantee, `objects below ${prefix} have names that are made at run time`, `/${prefix}*`);
}

/** Says why a policy of the grantee ends in a wildcard. */
export function acknowledgeWildcard(grantee: iam.IGrantable, reason: string, end: string): void {
  const principal: unknown = grantee.grantPrincipal;
  if (Construct.isConstruct(principal)) acknowledge(principal, "AwsSolutions-IAM5", reason, end);
}
