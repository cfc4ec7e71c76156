import { type Check, ok } from "./check.ts";
import type { Examination } from "./examination.ts";

/** Who we are for AWS. */
export function identityChecks(examination: Examination): readonly Check[] {
  return [
    {
      name: "AWS identity",
      async look() {
        const { account, arn } = await examination.caller();
        return ok(`${arn} of account ${account}`);
      },
    },
  ];
}
