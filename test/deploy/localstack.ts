import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { type Cloud, NoCloudError } from "./cloud.ts";

const run = promisify(execFile);
/** Its images of 2026 and later need the token of an account, and only with one have they ECS and ECR. */
const TOKEN = "LOCALSTACK_AUTH_TOKEN";
const IMAGE = "localstack/localstack:2026.04.0";
const SOCKET = "/var/run/docker.sock";
const ENGINE_DEADLINE_MS = 10_000;

/**
 * Starts LocalStack in Docker.
 * @throws NoCloudError where no Docker engine answers, or without a token.
 */
export async function startLocalStack(): Promise<Cloud> {
  const token = process.env[TOKEN];
  await run("docker", ["info"], { timeout: ENGINE_DEADLINE_MS }).catch(() => {
    throw new NoCloudError("no Docker engine answers");
  });
  if (!token) throw new NoCloudError(`it needs the variable ${TOKEN}`);
  const { LocalstackContainer } = await import("@testcontainers/localstack");
  const container = await new LocalstackContainer(IMAGE)
    .withEnvironment({ [TOKEN]: token, LAMBDA_IGNORE_ARCHITECTURE: "1" })
    // It starts Lambda functions as containers of their own.
    .withBindMounts([{ source: SOCKET, target: SOCKET }])
    .start();
  return {
    endpoint: container.getConnectionUri(),
    printed: () => "",
    async stop() {
      await container.stop();
    },
  };
}
