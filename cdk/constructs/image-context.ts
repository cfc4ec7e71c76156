import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { captureDefinition } from "../../lib/definition/capture-definition.ts";
import type { Pipeline } from "../../lib/definition/definition.ts";
import { buildCapture, CAPTURE } from "./capture-program.ts";
import { type Authorities, readPem } from "./certificate-authorities.ts";

/** Contents of a capture image besides the program. */
export interface ImageContents {
  readonly definition: Pipeline;
  /** A PEM file of the database's certificate authority, if it is a private one. */
  readonly certificateAuthorityFile?: string | undefined;
  /** RDS's certificate authorities, where the database is RDS's. */
  readonly rdsAuthorities?: Authorities | undefined;
  /** Stands for Node's image of the Dockerfile: the same version, in a registry of one's own. */
  readonly baseImage?: string | undefined;
}

/** The directory of certificate authorities below the program's. */
export const AUTHORITIES = "authorities";
/** File names there. */
export const DATABASE_AUTHORITY = "database.pem";
export const RDS_AUTHORITIES = "rds-global-bundle.pem";

const BASE = /^FROM (\S+) AS node$/m;
const CERTIFICATES = "# certificates\n";

/**
 * Writes the Docker context of the capture task into an empty directory: the programs as one file each, the pipeline definition as it
 * was at synth, certificates, and the Dockerfile. esbuild alone makes it; Docker is asked at deploy. The same contents give the same
 * files with the same modes, whatever umask the process has.
 */
export function writeImageContext(directory: string, contents: ImageContents): void {
  buildCapture(directory);
  // The definition as it was evaluated for the stack: what it read from the environment does not change on the way.
  const definition = JSON.stringify(captureDefinition(contents.definition), undefined, 2);
  writeFileSync(join(directory, "pipeline.mjs"), `export default ${definition};\n`);
  const files = ["main.mjs", "health.mjs", "operate.mjs", "pipeline.mjs", "Dockerfile"];
  const lines: string[] = [];
  const copy = (from: Buffer, name: string) => {
    writeFileSync(join(directory, name), from);
    files.push(name);
    lines.push(`COPY --chmod=444 ${name} ./${AUTHORITIES}/\n`);
  };
  const { certificateAuthorityFile, rdsAuthorities } = contents;
  if (certificateAuthorityFile !== undefined)
    copy(readPem("database.certificateAuthorityFile", certificateAuthorityFile), DATABASE_AUTHORITY);
  if (rdsAuthorities && "copyFrom" in rdsAuthorities)
    copy(readFileSync(rdsAuthorities.copyFrom), RDS_AUTHORITIES);
  else if (rdsAuthorities) {
    const { url, sha256 } = rdsAuthorities;
    const checksum = sha256 === undefined ? "" : `--checksum=sha256:${sha256} `;
    lines.push(`ADD ${checksum}--chmod=444 ${url} ./${AUTHORITIES}/${RDS_AUTHORITIES}\n`);
  }
  const template = readFileSync(join(CAPTURE, "Dockerfile"), "utf8");
  writeFileSync(join(directory, "Dockerfile"), completeDockerfile(template, lines, contents.baseImage));
  mkdirSync(join(directory, "writable"));
  // A directory without files is no part of an asset.
  writeFileSync(join(directory, "writable", ".tributary"), "");
  chmodSync(join(directory, "writable"), 0o755);
  for (const file of [...files, "writable/.tributary"]) chmodSync(join(directory, file), 0o644);
}

/** Returns the image's Dockerfile, with lines for its certificates, and another base if there is one. */
export function completeDockerfile(
  template: string,
  certificates: readonly string[],
  baseImage: string | undefined,
): string {
  // Git for Windows writes CR LF into a checkout: the image, and its hash, are the same everywhere.
  let text = template.replaceAll("\r\n", "\n");
  const replace = (part: RegExp | string, by: string) => {
    if (text.search(part) === -1) throw new Error(`the capture image's Dockerfile has no line ${part}`);
    text = text.replace(part, () => by);
  };
  replace(CERTIFICATES, certificates.join(""));
  if (baseImage !== undefined) replace(BASE, `FROM ${baseImage} AS node`);
  return text;
}
