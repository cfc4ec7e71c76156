import type { CloudFormationClient } from "@aws-sdk/client-cloudformation";
import type { CloudWatchLogsClient } from "@aws-sdk/client-cloudwatch-logs";
import { DynamoDBClient } from "@aws-sdk/client-dynamodb";
import type { ECSClient } from "@aws-sdk/client-ecs";
import type { IAMClient } from "@aws-sdk/client-iam";
import { KinesisClient } from "@aws-sdk/client-kinesis";
import type { LambdaClient } from "@aws-sdk/client-lambda";
import type { S3Client } from "@aws-sdk/client-s3";
import type { SecretsManagerClient } from "@aws-sdk/client-secrets-manager";
import { SQSClient } from "@aws-sdk/client-sqs";
import type { STSClient } from "@aws-sdk/client-sts";
import { NodeHttpHandler } from "@smithy/node-http-handler";

/*
 * The one place where AWS clients are made. They read region, credentials and endpoints as every AWS SDK does;
 * a given environment stands in for `process.env` so that the local host can point its own clients elsewhere.
 * https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
 */

/** Variables that clients are made from. */
export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * A Kinesis client that makes each request once: the SDK's own retry would send records again that may have been
 * stored, behind the back of the ordered writer, which retries itself.
 */
export function kinesisClient(environment: Environment = process.env): KinesisClient {
  const placed = place(environment, "KINESIS");
  return new KinesisClient({
    ...placed,
    ...once,
    // By default this client speaks HTTP/2, which a plain-http endpoint does not answer.
    ...(placed.endpoint?.startsWith("http:") ? { requestHandler: handler(30_000) } : {}),
  });
}

/**
 * A DynamoDB client that makes each request once: a conditional update whose answer was lost would meet its own
 * effect on the second try and look refused. Callers decide what a lost answer means.
 */
export function dynamodbClient(environment: Environment = process.env): DynamoDBClient {
  return new DynamoDBClient({ ...place(environment, "DYNAMODB"), ...once, requestHandler: handler(10_000) });
}

/** An SQS client with the SDK's retries: a message sent twice is found by its position. */
export function sqsClient(environment: Environment = process.env): SQSClient {
  // Long polling holds a request for up to 20 s.
  return new SQSClient({ ...place(environment, "SQS"), requestHandler: handler(30_000) });
}

/**
 * An S3 client that makes each request once: callers retry. Loaded when asked for, because most consumers never
 * need it. It leaves checksums to callers, who give and compare SHA-256.
 */
export async function s3Client(environment: Environment = process.env): Promise<S3Client> {
  const { S3Client } = await import("@aws-sdk/client-s3");
  const placed = place(environment, "S3");
  return new S3Client({
    ...placed,
    ...once,
    // A large body takes its time: the signals of the callers are the deadlines.
    requestHandler: handler(600_000),
    requestChecksumCalculation: "WHEN_REQUIRED",
    responseChecksumValidation: "WHEN_REQUIRED",
    // An endpoint of one's own has no name for each bucket.
    ...(placed.endpoint ? { forcePathStyle: true } : {}),
  });
}

/** A Secrets Manager client with the SDK's retries. Loaded when asked for: only the capture task may need it. */
export async function secretsManagerClient(
  environment: Environment = process.env,
): Promise<SecretsManagerClient> {
  const { SecretsManagerClient } = await import("@aws-sdk/client-secrets-manager");
  return new SecretsManagerClient({
    ...place(environment, "SECRETS_MANAGER"),
    requestHandler: handler(5_000),
  });
}

/**
 * A Lambda client that makes each request once and waits as long as a function may run. Loaded when asked for: only
 * redrive invokes functions.
 */
export async function lambdaClient(environment: Environment = process.env): Promise<LambdaClient> {
  const { LambdaClient } = await import("@aws-sdk/client-lambda");
  return new LambdaClient({ ...place(environment, "LAMBDA"), ...once, requestHandler: handler(910_000) });
}

/**
 * A CloudFormation client with the SDK's retries: it only reads. `region` is stronger than the environment's. Loaded when asked for: only
 * commands ask for stacks.
 */
export async function cloudformationClient(
  environment: Environment = process.env,
  region?: string,
): Promise<CloudFormationClient> {
  const { CloudFormationClient } = await import("@aws-sdk/client-cloudformation");
  return new CloudFormationClient({
    ...place(environment, "CLOUDFORMATION"),
    ...(region === undefined ? {} : { region }),
    requestHandler: handler(10_000),
  });
}

/** An ECS client with the SDK's retries: RunTask carries a token. Loaded when asked for: only commands ask for services and tasks. */
export async function ecsClient(environment: Environment = process.env): Promise<ECSClient> {
  const { ECSClient } = await import("@aws-sdk/client-ecs");
  return new ECSClient({ ...place(environment, "ECS"), requestHandler: handler(30_000) });
}

/** A client of CloudWatch Logs with the SDK's retries: it only reads. Loaded when asked for. */
export async function cloudwatchLogsClient(
  environment: Environment = process.env,
): Promise<CloudWatchLogsClient> {
  const { CloudWatchLogsClient } = await import("@aws-sdk/client-cloudwatch-logs");
  return new CloudWatchLogsClient({
    ...place(environment, "CLOUDWATCH_LOGS"),
    requestHandler: handler(10_000),
  });
}

/** An STS client with the SDK's retries. Loaded when asked for: only commands ask who they are. */
export async function stsClient(environment: Environment = process.env): Promise<STSClient> {
  const { STSClient } = await import("@aws-sdk/client-sts");
  return new STSClient({ ...place(environment, "STS"), requestHandler: handler(10_000) });
}

/** An IAM client with the SDK's retries. Loaded when asked for: only commands ask for rights. */
export async function iamClient(environment: Environment = process.env): Promise<IAMClient> {
  const { IAMClient } = await import("@aws-sdk/client-iam");
  return new IAMClient({ ...place(environment, "IAM"), requestHandler: handler(10_000) });
}

/** Stronger than `AWS_MAX_ATTEMPTS` and `AWS_RETRY_MODE` of the environment. */
const once = { maxAttempts: 1 } as const;

function handler(requestTimeout: number): NodeHttpHandler {
  return new NodeHttpHandler({
    connectionTimeout: 5_000,
    requestTimeout,
    throwOnRequestTimeout: true,
    httpAgent: { keepAlive: true, maxSockets: 128 },
    httpsAgent: { keepAlive: true, maxSockets: 128 },
  });
}

function place(environment: Environment, service: string) {
  const endpoint = environment[`AWS_ENDPOINT_URL_${service}`] ?? environment.AWS_ENDPOINT_URL;
  const region = environment.AWS_REGION ?? environment.AWS_DEFAULT_REGION;
  const { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey } = environment;
  return {
    ...(endpoint ? { endpoint } : {}),
    ...(region ? { region } : {}),
    // Where the environment is the process's own, the SDK's provider chain finds more than keys.
    ...(environment !== process.env && accessKeyId && secretAccessKey
      ? { credentials: { accessKeyId, secretAccessKey, sessionToken: environment.AWS_SESSION_TOKEN } }
      : {}),
  };
}
