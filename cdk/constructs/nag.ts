import { NagSuppressions } from "cdk-nag";
import type { IConstruct } from "constructs";

/** Why a finding of cdk-nag does not apply to a construct and what is in it; `appliesTo` narrows it to what ends so. */
export function acknowledge(
  construct: IConstruct,
  rule: string,
  reason: string,
  ...appliesTo: readonly string[]
): void {
  NagSuppressions.addResourceSuppressions(
    construct,
    [
      {
        id: rule,
        reason,
        ...(appliesTo.length > 0
          ? { appliesTo: appliesTo.map((end) => ({ regex: `/^.*${literally(end)}$/` })) }
          : {}),
      },
    ],
    true,
  );
}

function literally(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
}
