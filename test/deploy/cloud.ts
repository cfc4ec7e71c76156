import { startLocalStack } from "./localstack.ts";
import { startMiniStack } from "./ministack.ts";

/** An emulated AWS account that CDK can deploy to. */
export interface Cloud {
  readonly endpoint: string;
  /** The end of its log, for failures. */
  printed(): string;
  /** Idempotent. */
  stop(): Promise<void>;
}

/** This machine cannot have that cloud; the message says why. */
export class NoCloudError extends Error {}

/** One way to an emulated AWS; `start` throws NoCloudError where there is none. */
export interface CloudKind {
  readonly name: string;
  start(): Promise<Cloud>;
}

/** The one that `AWS_ENDPOINT_URL` names; without it MiniStack, and LocalStack too where it can run. */
export function cloudKinds(): readonly CloudKind[] {
  const endpoint = process.env.AWS_ENDPOINT_URL;
  if (endpoint === undefined) {
    return [
      { name: "MiniStack", start: startMiniStack },
      { name: "LocalStack", start: startLocalStack },
    ];
  }
  const given = { endpoint, printed: () => "", stop: async () => {} };
  return [{ name: endpoint, start: async () => given }];
}

/** Variables with which CDK, SDKs and programs find this cloud and no other. Nobody's real credentials are among them. */
export function cloudEnvironment({ endpoint }: Pick<Cloud, "endpoint">): Record<string, string> {
  return {
    AWS_ENDPOINT_URL: endpoint,
    AWS_ENDPOINT_URL_S3: endpoint,
    AWS_REGION: "us-east-1",
    AWS_ACCESS_KEY_ID: "test",
    AWS_SECRET_ACCESS_KEY: "test",
  };
}
