import { createHash } from "node:crypto";
import type { ClaimCheck } from "./claim-check.ts";
import { ClaimMismatchError } from "./record-errors.ts";

/**
 * Keeps changes that are too large for the stream. Each call makes one attempt. An error's `retry` says
 * whether another one may help.
 */
export interface ClaimStore {
  /** `bucket` of the pointers, and the first part of their keys (empty, or ending in a slash). */
  readonly bucket: string;
  readonly prefix: string;

  /**
   * Stores the bytes; durable when it resolves. Again with the same claim: the same object.
   * @throws ClaimStoreUnavailableError, ClaimStoreRefusedError
   */
  put(claim: ClaimCheck, bytes: Uint8Array, signal: AbortSignal): Promise<void>;

  /**
   * The bytes that were stored: size and hash are those of the claim.
   * @throws ClaimMissingError, ClaimMismatchError, ClaimStoreUnavailableError, ClaimStoreRefusedError
   */
  get(claim: ClaimCheck, signal: AbortSignal): Promise<Uint8Array>;
}

/** A name as one part of a claim's path: a topic may have any characters where the definition routes to it. */
export function pathSegment(text: string): string {
  return text.replaceAll("%", "%25").replaceAll("/", "%2F");
}

/** The beginning of the path of the changes that a consumer parks. No other consumer may write below it (cdk/constructs/claim-bucket.ts). */
export function parkedPath(pipeline: string, consumer: string): string {
  return `${pipeline}/parked/${consumer}`;
}

/**
 * The claim check of some bytes. Their hash is a part of the key: a replay may write the event anew with another
 * `ts_ms`, and must not overwrite what an earlier pointer stands for.
 */
export function claimOf(
  store: Pick<ClaimStore, "bucket" | "prefix">,
  path: string,
  bytes: Uint8Array,
): ClaimCheck {
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  const key = `${store.prefix}${path}-${sha256.slice(0, 16)}`;
  return { bucket: store.bucket, key, bytes: bytes.length, sha256 };
}

/** Gives the bytes back. @throws ClaimMismatchError when they are not those of the claim. */
export function verifyClaim(claim: ClaimCheck, bytes: Uint8Array): Uint8Array {
  checkClaimSize(claim, bytes.length);
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  if (sha256 !== claim.sha256) {
    throw new ClaimMismatchError(claim, `its SHA-256 is ${sha256}, expected ${claim.sha256}`);
  }
  return bytes;
}

/** @throws ClaimMismatchError: to be called before the bytes are read, where the size is known. */
export function checkClaimSize(claim: ClaimCheck, bytes: number): void {
  if (bytes !== claim.bytes)
    throw new ClaimMismatchError(claim, `it has ${bytes} bytes, expected ${claim.bytes}`);
}
