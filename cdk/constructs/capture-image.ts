import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Stack } from "aws-cdk-lib";
import * as ecr from "aws-cdk-lib/aws-ecr";
import { DockerImageAsset, Platform } from "aws-cdk-lib/aws-ecr-assets";
import * as ecs from "aws-cdk-lib/aws-ecs";
import { DISABLE_ASSET_STAGING_CONTEXT } from "aws-cdk-lib/cx-api";
import type { Construct } from "constructs";
import { ConfigurationError } from "../../lib/change/tributary-error.ts";
import { CAPTURE } from "./capture-program.ts";
import { type ImageContents, writeImageContext } from "./image-context.ts";

/** Directory of the program in the image. */
export const APP_DIRECTORY = "/app";

/** Processor architectures of the capture task. */
export type CaptureArchitecture = "arm64" | "x86_64";

/** The default: a fifth cheaper than x86-64 on Fargate. */
export const DEFAULT_ARCHITECTURE: CaptureArchitecture = "arm64";

/** The names of an architecture in ECS and in Docker. */
export const ARCHITECTURES = {
  arm64: { platform: Platform.LINUX_ARM64, cpu: ecs.CpuArchitecture.ARM64 },
  x86_64: { platform: Platform.LINUX_AMD64, cpu: ecs.CpuArchitecture.X86_64 },
} as const;

/** @throws ConfigurationError for an architecture that is not known: plain JavaScript passes any text. */
export function architectureOf(architecture: CaptureArchitecture | undefined) {
  const name = architecture ?? DEFAULT_ARCHITECTURE;
  const found = Object.hasOwn(ARCHITECTURES, name) ? ARCHITECTURES[name] : undefined;
  if (found) return found;
  const remedy = `write ${Object.keys(ARCHITECTURES)
    .map((known) => `"${known}"`)
    .join(" or ")}`;
  throw new ConfigurationError("CdcPipeline", [{ path: "capture.architecture", value: name, remedy }]);
}

/** Props of `captureImage`. */
export interface CaptureImageProps extends ImageContents {
  readonly architecture: CaptureArchitecture | undefined;
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
  // Tools that switch staging off read the context where it was made.
  let kept = directory === CAPTURE;
  try {
    if (!kept) writeImageContext(directory, props);
    const { platform } = architectureOf(props.architecture);
    const image = new DockerImageAsset(scope, "Image", { directory, platform });
    kept ||= Boolean(scope.node.tryGetContext(DISABLE_ASSET_STAGING_CONTEXT));
    return ecs.ContainerImage.fromDockerImageAsset(image);
  } finally {
    if (!kept) rmSync(directory, { recursive: true });
  }
}

/** `<account>.dkr.ecr.<region>.amazonaws.com/<name>:<tag>` or `…@sha256:…`: https://docs.aws.amazon.com/AmazonECR/latest/userguide/docker-pull-ecr-image.html */
const PRIVATE_IMAGE =
  /^(?<account>\d{12})\.dkr\.ecr\.(?<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?\/(?<name>[a-z0-9._/-]+)(?::(?<tag>[\w.-]+)|@(?<digest>sha256:[0-9a-f]{64}))?$/;

/**
 * Returns an image by its name in a registry. One of a private repository of ECR can be pulled by the task that gets it: CDK grants that
 * to the execution role where it knows the repository, and to a name alone it grants nothing.
 */
export function namedImage(scope: Construct, name: string): ecs.ContainerImage {
  const { account, region, name: repositoryName, tag, digest } = PRIVATE_IMAGE.exec(name)?.groups ?? {};
  if (account === undefined || region === undefined || repositoryName === undefined) {
    // Also its names for IPv6 (dkr-ecr) and FIPS, by which CDK knows no repository: the task could not pull it.
    if (!/\.dkr[.-]ecr[.-]/.test(name)) return ecs.ContainerImage.fromRegistry(name);
    const remedy =
      "write <account>.dkr.ecr.<region>.amazonaws.com/<repository>:<tag> or …@sha256:<digest>, or give ecs.ContainerImage.fromEcrRepository(…)";
    throw new ConfigurationError("CdcPipeline", [{ path: "capture.image", value: name, remedy }]);
  }
  const repositoryArn = Stack.of(scope).formatArn({
    ...{ service: "ecr", region, account, resource: "repository", resourceName: repositoryName },
  });
  const repository = ecr.Repository.fromRepositoryAttributes(scope, "Repository", {
    repositoryArn,
    repositoryName,
  });
  return ecs.ContainerImage.fromEcrRepository(repository, digest ?? tag);
}
