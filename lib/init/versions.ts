/** Versions that a new project gets: those that this one is tested with, exact. A test holds them against package.json. */
export const VERSIONS = {
  "tributary-cdc": "0.2.0",
  "@types/aws-lambda": "8.10.164",
  "@types/node": "24.19.2",
  "aws-cdk": "2.1148.1",
  "aws-cdk-lib": "2.275.0",
  constructs: "10.8.1",
  node: "24.21.0",
  typescript: "7.0.2",
} as const;
