import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative, resolve } from "node:path";
import { parseArgs } from "node:util";
import { explain } from "../lib/change/error-text.ts";
import { ConfigurationError, TributaryError } from "../lib/change/tributary-error.ts";
import { readDefinition } from "../lib/definition/file.ts";
import { ARCHITECTURES, architectureOf, type CaptureArchitecture } from "./constructs/capture-image.ts";
import { rdsAuthorities } from "./constructs/certificate-authorities.ts";
import { writeImageContext } from "./constructs/image-context.ts";

/*
 * `npm run image`: builds the capture image without a deploy, for your own registry. Exit code 0: built; 1: not built, and the output
 * says why and how to build it; 2: wrong usage.
 */

const USAGE = `npm run image -- [--definition FILE] [--tag NAME] [--architecture ${Object.keys(ARCHITECTURES).join("|")}]
                 [--base IMAGE] [--partition aws|aws-us-gov|aws-cn] [--authorities FILE] [--sha256 HEX]
                 [--certificate-authority FILE] [--output DIRECTORY]`;

/** By these a folder is known as a build context of this command. */
const CONTEXT_FILES = ["Dockerfile", "main.mjs", "operate.mjs", "pipeline.mjs", "writable"];

process.exitCode = await main();

async function main(): Promise<number> {
  let given: ReturnType<typeof readArguments>;
  try {
    given = readArguments();
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n${USAGE}\n`);
    return 2;
  }
  const { tag, base, partition, authorities, sha256 } = given;
  const directory = resolve(given.output);
  let platform: string;
  try {
    ({ platform } = architectureOf(given.architecture as CaptureArchitecture).platform);
    const definition = await readDefinition(given.definition);
    const pinned =
      sha256 === undefined && authorities === undefined
        ? undefined
        : { sha256: sha256 ?? "", ...(authorities === undefined ? {} : { file: authorities }) };
    const certificateAuthorityFile = given["certificate-authority"];
    if (certificateAuthorityFile !== undefined && pinned)
      throw wrong(
        "--authorities",
        "given",
        "leave it and --sha256 out: --certificate-authority names the authority",
      );
    // A server with an authority of its own is not RDS's.
    const authority =
      certificateAuthorityFile === undefined
        ? { rdsAuthorities: rdsAuthorities(partition, pinned) }
        : { certificateAuthorityFile };
    const made = mkdtempSync(join(tmpdir(), "tributary-image-"));
    try {
      // What is wrong with a file is found before the folder of the build before is emptied.
      writeImageContext(made, { definition, baseImage: base, ...authority });
      emptyContext(directory);
      cpSync(made, directory, { recursive: true });
    } finally {
      rmSync(made, { recursive: true });
    }
  } catch (error) {
    if (!(error instanceof TributaryError)) throw error;
    process.stderr.write(`${explain(error)}\n`);
    return 1;
  }
  const docker = process.env.CDK_DOCKER ?? "docker";
  const build = ["build", "--platform", platform, "--tag", tag, relative(process.cwd(), directory) || "."];
  const command = [docker, ...build].join(" ");
  process.stdout.write(`The build context is in ${directory}.\n${command}\n`);
  const env = { DOCKER_BUILDKIT: "1", ...process.env };
  const { status, error } = spawnSync(docker, build, { stdio: "inherit", env });
  if (status !== 0) {
    const why = error ? `cannot be started here (${error.message})` : `ended with ${status}`;
    process.stderr.write(
      `NOT BUILT: ${docker} ${why}.\nOn a machine with Docker 23 or newer, or with CDK_DOCKER naming a program like it, in this folder:\n  ${command}\n`,
    );
    return 1;
  }
  process.stdout.write(
    `Built ${tag}. Push it to a repository of ECR, and name it: capture: { image: "<account>.dkr.ecr.<region>.amazonaws.com/<repository>:<tag>"${given.architecture === "arm64" ? "" : `, architecture: "${given.architecture}"`} }\n`,
  );
  return 0;
}

/** Makes an empty folder of one that is missing, empty, or a build context of before. @throws ConfigurationError for any other, untouched. */
function emptyContext(directory: string): void {
  const stats = statSync(directory, { throwIfNoEntry: false });
  const found = stats?.isDirectory() ? readdirSync(directory) : [];
  if (
    (stats && !stats.isDirectory()) ||
    (found.length > 0 && !CONTEXT_FILES.every((name) => found.includes(name)))
  )
    throw wrong(
      "--output",
      directory,
      "name a folder that is new or empty: what stands there is not of this command, and would be removed",
    );
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { recursive: true, mode: 0o755 });
}

function wrong(path: string, value: string, remedy: string): ConfigurationError {
  return new ConfigurationError("The command", [{ path, value, remedy }]);
}

function readArguments() {
  const text = { type: "string" } as const;
  const { values } = parseArgs({
    options: {
      definition: { ...text, default: "cdk/pipeline.ts" },
      tag: { ...text, default: "tributary-capture" },
      architecture: { ...text, default: "arm64" },
      partition: { ...text, default: "aws" },
      output: { ...text, default: "dist/image" },
      ...{ base: text, authorities: text, sha256: text, "certificate-authority": text },
    },
  });
  return values;
}
