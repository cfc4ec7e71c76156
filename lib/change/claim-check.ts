import { objectOf, sha256, wholeFrom, word } from "./shape.ts";

/** Pointer to a change that was too large to travel in the stream. */
export interface ClaimCheck {
  /** Name of the S3 bucket, or URL of the directory. */
  readonly bucket: string;
  readonly key: string;
  readonly bytes: number;
  /** Of the object's bytes, 64 hex digits. */
  readonly sha256: string;
}

/** A claim check as records and the state table hold it. */
export const storedClaimCheck = objectOf({ bucket: word, key: word, bytes: wholeFrom(0), sha256 });
