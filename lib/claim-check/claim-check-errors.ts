import { remedyText } from "#remedy";
import { defineError } from "../change/tributary-error.ts";

/** The claim store did not answer, or could not serve: passes by itself. */
export class ClaimStoreUnavailableError extends defineError("CLAIM_STORE_UNAVAILABLE", "retry").from(
  (bucket: string, reason: string, cause: unknown) => ({
    message: `The claim store ${bucket} did not take or give an object: ${reason}`,
    remedy: remedyText(
      "If it lasts, look at S3's health, the way to it (gateway endpoint, proxy) and the disk.",
    ),
    cause,
  }),
) {}

/** The claim store refuses: it does not exist, or does not permit it. The same request would be refused again. */
export class ClaimStoreRefusedError extends defineError("CLAIM_STORE_REFUSED", "stop").from(
  (bucket: string, reason: string, cause: unknown) => ({
    message: `The claim store ${bucket} refuses: ${reason}`,
    remedy: remedyText(
      "See that TRIBUTARY_CLAIM_BUCKET is of this account and region. Permit the capture task s3:PutObject, consumers s3:GetObject and s3:ListBucket, and both the bucket's KMS key.",
    ),
    cause,
  }),
) {}
