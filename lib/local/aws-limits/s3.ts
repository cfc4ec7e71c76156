import type { IncomingHttpHeaders } from "node:http";
import { type AwsRefusal, utf8Bytes } from "../../aws/refusal.ts";

const KEYS = "https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html";
const METADATA = "https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html";
const UPLOADS = "https://docs.aws.amazon.com/AmazonS3/latest/userguide/upload-objects.html";
const KEY_BYTES = 1024;
/** Names and values of user-defined metadata in sum. */
const METADATA_BYTES = 2 * 1024;
/** Of one PUT. */
const OBJECT_BYTES = 5 * 1024 ** 3;

/** Returns why S3 refuses a request of path style, by its path and headers, or undefined. */
export function s3Refusal(
  method: string,
  path: string,
  headers: IncomingHttpHeaders,
): AwsRefusal | undefined {
  const key = decodeURIComponent(path.split("?")[0]?.split("/").slice(2).join("/") ?? "");
  if (utf8Bytes(key) > KEY_BYTES) {
    return { code: "KeyTooLongError", message: "Your key is too long", page: KEYS };
  }
  if (method !== "PUT" && method !== "POST") return undefined;
  let bytes = 0;
  for (const [name, value] of Object.entries(headers)) {
    if (name.startsWith("x-amz-meta-")) {
      bytes += utf8Bytes(name.slice("x-amz-meta-".length)) + utf8Bytes(String(value));
    }
  }
  if (bytes > METADATA_BYTES) {
    return {
      code: "MetadataTooLarge",
      message: "Your metadata headers exceed the maximum allowed metadata size",
      page: METADATA,
    };
  }
  if (Number(headers["content-length"] ?? 0) > OBJECT_BYTES) {
    return {
      code: "EntityTooLarge",
      message: "Your proposed upload exceeds the maximum allowed size",
      page: UPLOADS,
    };
  }
  return undefined;
}
