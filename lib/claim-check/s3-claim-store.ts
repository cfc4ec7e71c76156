import { addAbortSignal, type Readable } from "node:stream";
import type { S3Client } from "@aws-sdk/client-s3";
import type { ClaimCheck } from "../change/claim-check.ts";
import { type ClaimStore, checkClaimSize, verifyClaim } from "../change/claim-store.ts";
import { ClaimMissingError } from "../change/record-errors.ts";
import { TributaryError } from "../change/tributary-error.ts";
import { ClaimStoreRefusedError, ClaimStoreUnavailableError } from "./claim-check-errors.ts";

/**
 * Claims as objects of an S3 bucket. Encryption at rest and lifetime are the bucket's own settings.
 * https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html
 */
export class S3ClaimStore implements ClaimStore {
  readonly bucket: string;
  readonly prefix: string;
  readonly #s3: S3Client;

  /** `prefix` is empty or ends in a slash. The client should make one attempt: callers retry. */
  constructor(s3: S3Client, bucket: string, prefix: string) {
    this.#s3 = s3;
    this.bucket = bucket;
    this.prefix = prefix;
  }

  async put(claim: ClaimCheck, bytes: Uint8Array, signal: AbortSignal): Promise<void> {
    const { PutObjectCommand } = await sdk();
    const command = new PutObjectCommand({
      Bucket: claim.bucket,
      Key: claim.key,
      Body: bytes,
      ContentLength: bytes.length,
      ContentType: "application/json",
      // S3 compares it with what arrived.
      ChecksumSHA256: Buffer.from(claim.sha256, "hex").toString("base64"),
    });
    try {
      await this.#s3.send(command, { abortSignal: signal });
    } catch (error) {
      throw judge(error, claim);
    }
  }

  async get(claim: ClaimCheck, signal: AbortSignal): Promise<Uint8Array> {
    const { GetObjectCommand } = await sdk();
    const command = new GetObjectCommand({ Bucket: claim.bucket, Key: claim.key });
    try {
      const { Body, ContentLength } = await this.#s3.send(command, { abortSignal: signal });
      const body = addAbortSignal(signal, Body as Readable);
      try {
        if (ContentLength !== undefined) checkClaimSize(claim, ContentLength);
        return verifyClaim(claim, await read(body, claim));
      } finally {
        body.destroy();
      }
    } catch (error) {
      throw error instanceof TributaryError ? error : judge(error, claim);
    }
  }
}

/** Loaded when needed: most invocations of a consumer never meet a claim. */
function sdk() {
  return import("@aws-sdk/client-s3");
}

/** Reads into one buffer of the size that is due. */
async function read(body: Readable, claim: ClaimCheck): Promise<Uint8Array> {
  const bytes = Buffer.allocUnsafe(claim.bytes);
  let length = 0;
  for await (const chunk of body as AsyncIterable<Uint8Array>) {
    if (length + chunk.length > claim.bytes) checkClaimSize(claim, length + chunk.length);
    bytes.set(chunk, length);
    length += chunk.length;
  }
  checkClaimSize(claim, length);
  return bytes;
}

/** Answers below 500 that pass by themselves: credentials that come anew, clocks the SDK corrects, throttling. */
const PASSES =
  /^(ExpiredToken|ExpiredTokenException|RequestExpired|RequestTimeTooSkewed|RequestTimeout|TooManyRequests|OperationAborted|BadDigest|IncompleteBody|.*Throttl.*)$/;

function judge(error: unknown, claim: ClaimCheck): TributaryError {
  const { name, $metadata } = error as { name?: string; $metadata?: { httpStatusCode?: number } };
  const status = $metadata?.httpStatusCode ?? 0;
  const reason = name ?? "unknown";
  if (name === "NoSuchKey") return new ClaimMissingError(claim);
  if (status >= 300 && status < 500 && status !== 429 && !PASSES.test(reason)) {
    return new ClaimStoreRefusedError(claim.bucket, `${status} ${reason}`, error);
  }
  return new ClaimStoreUnavailableError(claim.bucket, reason, error);
}
