import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Stack } from "aws-cdk-lib";
import { Asset } from "aws-cdk-lib/aws-s3-assets";
import { DISABLE_ASSET_STAGING_CONTEXT } from "aws-cdk-lib/cx-api";
import type { Construct } from "constructs";
import { type BuildOptions, buildSync } from "esbuild";
import { FUNCTION_BUNDLING } from "./function-bundling.ts";
import { type ConsumerBundling, conditions } from "./function-settings.ts";

const BUNDLE = {
  bundle: true,
  platform: "node",
  target: FUNCTION_BUNDLING.target,
  format: "esm",
  mainFields: FUNCTION_BUNDLING.mainFields,
  logLevel: "error",
} satisfies BuildOptions;

/**
 * Returns whether an entry file exports `sink`, which `tributary verify` reads. Packages that it imports are not searched. A file that
 * does not build is reported by the build of the function.
 */
export function exportsSink(entry: string, bundling: ConsumerBundling = {}): boolean {
  try {
    const { metafile } = buildSync({
      ...BUNDLE,
      ...chosen(bundling),
      logLevel: "silent",
      entryPoints: [entry],
      packages: "external",
      outfile: "sink.mjs",
      metafile: true,
      write: false,
    });
    return Object.values(metafile.outputs).some(({ exports }) => exports.includes("sink"));
  } catch {
    return false;
  }
}

/** Returns the options of a consumer's bundling that esbuild takes as they are. */
function chosen(bundling: ConsumerBundling): BuildOptions {
  const { loader, define, tsconfig } = bundling;
  return {
    conditions: conditions(bundling),
    ...(loader && { loader: loader as NonNullable<BuildOptions["loader"]> }),
    ...(define && { define }),
    ...(tsconfig && { tsconfig }),
  };
}

/** Writes an entry file and what it imports to one file that exports `sink`, as the function's is made. */
export function buildSink(entry: string, outfile: string, bundling: ConsumerBundling = {}): void {
  buildSync({
    ...BUNDLE,
    ...chosen(bundling),
    entryPoints: [entry],
    outfile,
    minify: bundling.minify ?? FUNCTION_BUNDLING.minify,
    keepNames: FUNCTION_BUNDLING.keepNames,
    banner: { js: FUNCTION_BUNDLING.banner },
    external: ["pg-native"],
  });
}

/** The code of a consumer as a file of the assets' bucket. The function's own is an archive, which a task would have to open. */
export function sinkCode(scope: Construct, entry: string, bundling?: ConsumerBundling): Asset {
  // Without bundling (`cdk ls`, other stacks of an app) it is not looked at.
  if (!Stack.of(scope).bundlingRequired) return new Asset(scope, "Code", { path: entry });
  const directory = mkdtempSync(join(tmpdir(), "tributary-sink-"));
  const path = join(directory, "index.mjs");
  buildSink(entry, path, bundling);
  const asset = new Asset(scope, "Code", { path });
  // Tools that switch staging off read it where it was made.
  if (!scope.node.tryGetContext(DISABLE_ASSET_STAGING_CONTEXT)) rmSync(directory, { recursive: true });
  return asset;
}
