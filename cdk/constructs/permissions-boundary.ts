import { Stack } from "aws-cdk-lib";
import * as iam from "aws-cdk-lib/aws-iam";
import { AwsCustomResource } from "aws-cdk-lib/custom-resources";
import type { Construct } from "constructs";
import { ConfigurationError } from "../../lib/change/tributary-error.ts";

/** CDK's custom resource providers that a pipeline uses. All pipelines of a stack share one of each. */
const PROVIDERS = [
  `AWS${AwsCustomResource.PROVIDER_FUNCTION_UUID.replaceAll("-", "")}`,
  "Custom::S3AutoDeleteObjectsCustomResourceProvider",
];

/** The boundary that the pipelines of a stack have given its providers, and the first of them. */
const given = new WeakMap<Stack, { readonly by: string; readonly arn: string }>();

/**
 * Sets the permissions boundary of all roles below a scope, and of those of CDK's providers in its stack.
 * @throws ConfigurationError where another pipeline of the stack has given the providers another one.
 */
export function setBoundary(scope: Construct, policy: iam.IManagedPolicy): void {
  const stack = Stack.of(scope);
  const arn = JSON.stringify(stack.resolve(policy.managedPolicyArn));
  const before = given.get(stack);
  if (before && before.arn !== arn) {
    const remedy = `the stack's custom resources are provided by functions that its pipelines share, and ${before.by} has given their roles ${before.arn}: name that one, or give the pipeline a stack of its own`;
    throw new ConfigurationError("CdcPipeline", [{ path: "permissionsBoundary", value: arn, remedy }]);
  }
  given.set(stack, before ?? { by: scope.node.path, arn });
  const providers = PROVIDERS.flatMap((id) => stack.node.tryFindChild(id) ?? []);
  for (const each of [scope, ...providers]) iam.PermissionsBoundary.of(each).apply(policy);
}
