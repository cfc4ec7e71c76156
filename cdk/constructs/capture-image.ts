import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Stack } from "aws-cdk-lib";
import { DockerImageAsset, Platform } from "aws-cdk-lib/aws-ecr-assets";
import * as ecs from "aws-cdk-lib/aws-ecs";
import { DISABLE_ASSET_STAGING_CONTEXT } from "aws-cdk-lib/cx-api";
import type { Construct } from "constructs";
import type { Pipeline } from "../../lib/definition/definition.ts";
import { buildCapture, CAPTURE } from "./capture-program.ts";

/** Directory of the program in the image. */
export const APP_DIRECTORY = "/app";

/** Props of `captureImage`. */
export interface CaptureImageProps {
  readonly definition: Pipeline;
  /** A PEM file of the database's certificate authority, if it is a private one. */
  readonly certificateAuthorityFile?: string | undefined;
}

/**
 * The image as an asset: built by Docker when it is deployed. Its context goes into the cloud assembly; what it was made in
 * is removed again.
 */
export function captureImage(scope: Construct, props: CaptureImageProps): ecs.ContainerImage {
  // Without bundling (`cdk ls`, other stacks of an app) the context is not looked at.
  const directory = Stack.of(scope).bundlingRequired
    ? mkdtempSync(join(tmpdir(), "tributary-capture-"))
    : CAPTURE;
  if (directory !== CAPTURE) writeContext(directory, props);
  const image = new DockerImageAsset(scope, "Image", { directory, platform: Platform.LINUX_ARM64 });
  // Tools that switch staging off read the context where it was made.
  const staged = !scope.node.tryGetContext(DISABLE_ASSET_STAGING_CONTEXT);
  if (directory !== CAPTURE && staged) rmSync(directory, { recursive: true });
  return ecs.ContainerImage.fromDockerImageAsset(image);
}

/**
 * The Docker context of the capture task: the program as one file, its health check, the pipeline definition as it was
 * at synth, and the Dockerfile. esbuild alone makes it: Docker is asked at deploy.
 */
function writeContext(directory: string, { definition, certificateAuthorityFile }: CaptureImageProps): void {
  buildCapture(directory);
  // The definition as it was evaluated for the stack: what it read from the environment does not change on the way.
  writeFileSync(
    join(directory, "pipeline.mjs"),
    `export default ${JSON.stringify(definition, undefined, 2)};\n`,
  );
  copyFileSync(join(CAPTURE, "Dockerfile"), join(directory, "Dockerfile"));
  mkdirSync(join(directory, "authorities"));
  writeFileSync(join(directory, "authorities", "README"), "The database's certificate authorities.\n");
  if (certificateAuthorityFile) {
    copyFileSync(certificateAuthorityFile, join(directory, "authorities", "database.pem"));
  }
}
