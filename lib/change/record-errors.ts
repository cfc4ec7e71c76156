import { remedyText } from "#remedy";
import type { ClaimCheck } from "./claim-check.ts";
import { defineError } from "./tributary-error.ts";

/**
 * A Kinesis record is not of the format ("Formats on the wire"): another producer wrote it, or it is damaged. `problem` names
 * places and kinds, never what stands there: a record holds row values. `which` names the record, once that is known.
 */
export class RecordFormatError extends defineError("RECORD_FORMAT", "stop").from(
  (problem: string, which?: string) => ({
    message: `A Kinesis record is not a Tributary record: ${problem}${which === undefined ? "" : ` (${which})`}`,
    remedy: remedyText(
      "Let nothing but the capture task write to the stream; deploy the consumer's newer version first.",
    ),
    problem,
  }),
) {}

/** The object of a claim check is not there: it was deleted, or the bucket's lifetime rule was shorter than its need. */
export class ClaimMissingError extends defineError("CLAIM_MISSING", "stop").saying(
  ({ bucket, key }: ClaimCheck) => `The object ${key} of a claim check is not in ${bucket}`,
  remedyText(
    "Restore the object, then: tributary redrive --consumer <consumer>. Where it is gone and holds a partition: tributary consumer accept-gap --consumer <consumer> --topic '<topic>' --partition <partition>",
  ),
) {}

/** The bucket holds something else than the pointer was written for: damaged, cut or replaced. `difference` names sizes, hashes and positions, never content. */
export class ClaimMismatchError extends defineError("CLAIM_MISMATCH", "stop").saying(
  ({ bucket, key }: ClaimCheck, difference: string) =>
    `The object ${key} in ${bucket} is not the one of its claim check: ${difference}`,
  remedyText(
    "Let only the capture task write to the bucket. Restore the object, then: tributary redrive --consumer <consumer>",
  ),
) {}
