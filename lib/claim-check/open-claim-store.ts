import { directoryOf, openDirectory } from "#claim-directory";
import { s3Client } from "../aws/clients.ts";
import type { ClaimStore } from "../change/claim-store.ts";
import { ConfigurationError } from "../change/tributary-error.ts";
import { S3ClaimStore } from "./s3-claim-store.ts";

/** Says where changes stand that are too large for the stream: `s3://bucket/prefix` or `file:///directory`. */
export const CLAIM_BUCKET_VARIABLE = "TRIBUTARY_CLAIM_BUCKET";

/** Place of the claims. */
export type ClaimLocation =
  | { readonly kind: "s3"; readonly bucket: string; readonly prefix: string }
  | { readonly kind: "directory"; readonly path: string };

/** https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html */
const S3_URL = /^s3:\/\/([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:\/(.*))?$/;

/** @throws ConfigurationError when it is neither an `s3:` nor a `file:` URL. */
export function claimLocation(url: string): ClaimLocation {
  const [, bucket, path = ""] = S3_URL.exec(url) ?? [];
  if (bucket !== undefined) {
    const prefix = path.replace(/\/+$/, "");
    if (Buffer.byteLength(prefix) <= 200 && !prefix.startsWith("/")) {
      return { kind: "s3", bucket, prefix: prefix === "" ? "" : `${prefix}/` };
    }
  }
  const directory = directoryOf(url);
  if (directory !== undefined) return { kind: "directory", path: directory };
  throw new ConfigurationError("The environment", [
    {
      path: CLAIM_BUCKET_VARIABLE,
      value: url,
      remedy:
        "write s3://bucket or s3://bucket/prefix (at most 200 bytes of prefix), or file:///absolute/directory",
    },
  ]);
}

/**
 * The claim store that the environment names, or undefined where it names none.
 * @throws ConfigurationError when it names what is none.
 */
export async function claimStoreFromEnvironment(
  environment: Readonly<Record<string, string | undefined>>,
): Promise<ClaimStore | undefined> {
  const url = environment[CLAIM_BUCKET_VARIABLE];
  if (!url) return undefined;
  const location = claimLocation(url);
  if (location.kind === "s3") {
    return new S3ClaimStore(await s3Client(environment), location.bucket, location.prefix);
  }
  return openDirectory(location.path);
}
