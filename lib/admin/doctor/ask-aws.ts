import { awsFailure, REACH_AWS, wasAnswered } from "../../aws/failure.ts";
import type { TributaryError } from "../../change/tributary-error.ts";
import { isDenied } from "../aws-access.ts";
import { NotChecked } from "./check.ts";

/**
 * Reads something of AWS. `missing`: the error where the service answers by one of these names that it is not there.
 * @throws NotChecked with the action where it is refused or not answered, and what `missing` gives.
 */
export async function askAws<T>(
  action: string,
  call: () => Promise<T>,
  missing?: { readonly names: readonly string[]; error(cause: unknown): TributaryError },
): Promise<T> {
  try {
    return await call();
  } catch (error) {
    const { name = "" } = error instanceof Error ? error : {};
    if (missing?.names.includes(name)) throw missing.error(error);
    if (isRefused(error))
      throw new NotChecked(`${action} is refused: ${awsFailure(error)}; allow it, and run doctor again`);
    if (wasAnswered(error)) throw new NotChecked(`${action} failed: ${awsFailure(error)}`);
    throw new NotChecked(`${action} gave no answer: ${awsFailure(error)}; ${REACH_AWS}`);
  }
}

/** S3 answers a HEAD without words. */
function isRefused(error: unknown): boolean {
  const { $metadata } = error as { readonly $metadata?: { readonly httpStatusCode?: number } };
  return isDenied(error) || $metadata?.httpStatusCode === 403;
}
