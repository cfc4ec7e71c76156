import { createHash, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { ConfigurationError } from "../../lib/change/tributary-error.ts";

/** A pinned bundle of RDS's certificate authorities. */
export interface PinnedAuthorities {
  /**
   * The bundle as a file beside the app: it goes into the image's build context, and nothing is fetched. Default: it is fetched
   * while the image is built.
   */
  readonly file?: string;
  /** SHA-256 of the bundle, in hex. Another file stops the synth, another download the build. */
  readonly sha256: string;
}

/** A certificate bundle on its way into the image. */
export type Authorities = { readonly copyFrom: string } | { readonly url: string; readonly sha256?: string };

/**
 * Addresses at which AWS publishes the bundle of each partition:
 * https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.SSL.html,
 * https://docs.amazonaws.cn/en_us/AmazonRDS/latest/UserGuide/UsingWithRDS.SSL.html
 */
export const RDS_BUNDLES: Readonly<Record<string, string>> = {
  aws: "https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem",
  "aws-us-gov": "https://truststore.pki.us-gov-west-1.rds.amazonaws.com/global/global-bundle.pem",
  "aws-cn": "https://rds-truststore.s3.cn-north-1.amazonaws.com.cn/global/global-bundle.pem",
};

/**
 * Returns the bundle of RDS's authorities for a partition of AWS.
 * @throws ConfigurationError for a pinned file that differs or holds no authorities, and for a partition whose bundle is not known.
 */
export function rdsAuthorities(partition: string, pinned: PinnedAuthorities | undefined): Authorities {
  const path = "capture.rdsAuthorities";
  const sha256 = pinned?.sha256.toLowerCase();
  if (sha256 !== undefined && !/^[0-9a-f]{64}$/.test(sha256))
    throw wrong(`${path}.sha256`, sha256, "write the 64 hexadecimal digits that sha256sum prints");
  if (pinned?.file !== undefined) {
    const file = `${path}.file`;
    const text = readPem(file, pinned.file);
    const found = createHash("sha256").update(text).digest("hex");
    if (found !== sha256)
      throw wrong(
        file,
        pinned.file,
        `its SHA-256 is ${found}, and ${path}.sha256 says ${sha256}: fetch the bundle again, and compare both with what AWS publishes`,
      );
    return { copyFrom: pinned.file };
  }
  const url = RDS_BUNDLES[partition];
  if (url === undefined)
    throw wrong(
      path,
      partition,
      `the address of RDS's bundle in the partition ${partition} is not known here: fetch the bundle, and give its file and sha256`,
    );
  return { url, ...(sha256 === undefined ? {} : { sha256 }) };
}

/** @throws ConfigurationError where the file is missing or is not a list of certificate authorities. */
export function readPem(path: string, file: string): Buffer {
  let text: Buffer;
  try {
    text = readFileSync(file);
  } catch (error) {
    throw wrong(path, file, `name a PEM file that can be read (${(error as Error).message})`);
  }
  // All of the file goes into the image, and the image to whoever may pull it.
  if (/-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(text.toString("latin1")))
    throw wrong(path, file, "it holds a private key: name a PEM file of certificates alone");
  const certificates = text
    .toString("latin1")
    .match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g);
  try {
    for (const certificate of certificates ?? []) new X509Certificate(certificate);
  } catch {
    throw wrong(path, file, "one of its certificates cannot be read: name a PEM file of certificates");
  }
  if (certificates === null)
    throw wrong(path, file, "it holds no certificate: name a PEM file of certificates");
  return text;
}

function wrong(path: string, value: unknown, remedy: string): ConfigurationError {
  return new ConfigurationError("CdcPipeline", [{ path, value, remedy }]);
}
