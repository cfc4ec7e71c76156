import * as nodejs from "aws-cdk-lib/aws-lambda-nodejs";
import { REQUIRE_BANNER } from "./capture-program.ts";

/** Bundling of our Lambda functions into one file each. */
export const FUNCTION_BUNDLING = {
  format: nodejs.OutputFormat.ESM,
  target: "node24",
  minify: true,
  keepNames: true,
  mainFields: ["module", "main"],
  banner: REQUIRE_BANNER,
  // The AWS SDK that was tested, not the one that Lambda has today.
  bundleAwsSDK: true,
} satisfies nodejs.BundlingOptions;
