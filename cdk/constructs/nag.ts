import { CfnResource } from "aws-cdk-lib";
import type { IConstruct } from "constructs";

/** A resource's metadata where cdk-nag looks for answers: https://github.com/cdklabs/cdk-nag#suppressing-a-rule */
const METADATA = "cdk_nag";

interface Answers {
  readonly rules_to_suppress: readonly object[];
}

/**
 * Says why a finding of cdk-nag does not apply to a construct and what is in it; `appliesTo` narrows it to what ends so.
 * It stands in the template as cdk-nag writes it, without cdk-nag: an app that checks with it finds nothing, one that does not
 * need not install it.
 */
export function acknowledge(
  construct: IConstruct,
  rule: string,
  reason: string,
  ...appliesTo: readonly string[]
): void {
  const answer = {
    id: rule,
    reason,
    ...(appliesTo.length > 0
      ? { applies_to: appliesTo.map((end) => ({ regex: `/^.*${literally(end)}$/` })) }
      : {}),
  };
  for (const resource of construct.node.findAll().filter(CfnResource.isCfnResource)) {
    const answers = resource.getMetadata(METADATA) as Answers | undefined;
    resource.addMetadata(METADATA, { rules_to_suppress: withAnswer(answers, answer) });
  }
}

function withAnswer(answers: Answers | undefined, answer: object): readonly object[] {
  const given = answers?.rules_to_suppress ?? [];
  const text = JSON.stringify(answer);
  return given.some((one) => JSON.stringify(one) === text) ? given : [...given, answer];
}

function literally(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
}
