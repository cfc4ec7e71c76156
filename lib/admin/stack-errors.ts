import { defineError } from "../change/tributary-error.ts";
import type { AwsCaller } from "./aws-access.ts";

/** There is no stack of that name where the command looks. */
export class StackNotFoundError extends defineError("STACK_NOT_FOUND", "stop").from(
  (stack: string, caller: AwsCaller, near: readonly string[] | undefined) => ({
    message: `there is no stack "${stack}" in ${placeInWords(caller)}${near === undefined || near.length === 0 ? "" : `; there is ${near.join(", ")}`}`,
    remedy: `${near === undefined ? "Which stacks there are could not be listed: that needs cloudformation:ListStacks. " : ""}Name the stack that the pipeline was deployed with. One in another account needs --profile, one in another region --region.`,
    near: near ?? [],
  }),
) {}

/** A stack's ARN names another account than the credentials. */
export class StackOfOtherAccountError extends defineError("STACK_OTHER_ACCOUNT", "stop").from(
  (stack: string, account: string, caller: AwsCaller) => ({
    message: `the stack ${stack} is of account ${account}, and the credentials are of ${placeInWords(caller)}`,
    remedy: `Choose credentials of account ${account}: --profile, or $AWS_PROFILE.`,
  }),
) {}

/** A stack has no outputs that name the pipeline. */
export class StackPipelineError extends defineError("STACK_PIPELINE", "stop") {}

/** Returns a sentence part that names account, profile and region. */
export function placeInWords({ account, profile, region }: AwsCaller): string {
  const whose = profile === undefined ? "" : ` (profile "${profile}")`;
  return `${account === undefined ? "the account of these credentials" : `account ${account}`}${whose}, region ${region}`;
}
