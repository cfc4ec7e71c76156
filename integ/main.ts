import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

/*
 * `npm run integ`: deploys a pipeline with its own network and database to the AWS account of the environment's credentials, sees a row
 * arrive, and removes everything. Exit code 0: seen; 1: not, or something is left; 2: wrong usage.
 */

const PROJECT = fileURLToPath(new URL("..", import.meta.url));
const OUTPUT = "dist/integ";

// Ctrl-C ends the CDK command that it reaches too; what stands in the account is removed all the same.
process.on("SIGINT", () => {});
process.exitCode = main();

function main(): number {
  let keep: boolean;
  try {
    keep = parseArgs({ options: { keep: { type: "boolean", default: false } } }).values.keep;
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\nnpm run integ [-- --keep]\n`);
    return 2;
  }
  process.stderr.write(
    "Deploys a VPC with a NAT gateway, an RDS instance (t4g.micro) and a pipeline to your AWS account: 20 to 40 minutes, below 1 USD, and removed at the end. The account and region must be bootstrapped (npx cdk bootstrap), and Docker must answer.\n",
  );
  const seen = cdk(
    "deploy",
    "--all",
    "--require-approval",
    "never",
    "--app",
    "node integ/app.ts",
    "--output",
    OUTPUT,
  );
  if (keep) {
    process.stderr.write(`Kept: npx cdk destroy --all --app ${OUTPUT} removes it.\n`);
    return seen;
  }
  const removed = cdk("destroy", "--all", "--force", "--app", OUTPUT);
  if (removed !== 0)
    process.stderr.write(`NOT REMOVED, and it costs money: npx cdk destroy --all --app ${OUTPUT}\n`);
  process.stderr.write(
    seen === 0 ? "SEEN: the row arrived.\n" : "NOT SEEN: the deploy failed; it has said why above.\n",
  );
  return seen === 0 && removed === 0 ? 0 : 1;
}

function cdk(...args: readonly string[]): number {
  const { status, error } = spawnSync("cdk", args, { cwd: PROJECT, stdio: "inherit" });
  if (error) process.stderr.write(`cdk cannot be started: ${error.message}\n`);
  return status === 0 ? 0 : 1;
}
