import { setTimeout as delay } from "node:timers/promises";
import type { SQSClient } from "@aws-sdk/client-sqs";
import pg from "pg";
import { dynamodbClient, kinesisClient, sqsClient } from "../../aws/clients.ts";
import type { Pipeline } from "../../definition/pipeline.ts";
import { type EmbeddedPostgres, startEmbeddedPostgres } from "../../local/embedded-postgres.ts";
import { type Emulators, refusedText, startEmulators } from "../../local/emulators.ts";
import { CallsRefusedError } from "../../local/local-errors.ts";
import { type AwsClients, createResources, type PipelineResources } from "../../local/resources.ts";
import type { CaptureTask } from "./capture-task.ts";

/** The parts that every checked pipeline runs on, on this machine. */
export interface CheckedParts {
  readonly source: EmbeddedPostgres;
  readonly emulators: Emulators;
  readonly kinesis: AwsClients["kinesis"];
  readonly sqs: SQSClient;
  readonly resources: PipelineResources;
}

/**
 * Starts a source server with these tables, and emulated AWS with the resources of the pipeline. Each part is ended with `stack`,
 * also where another one does not start.
 */
export async function startLocalParts(
  definition: Pipeline,
  schema: readonly string[],
  stack: AsyncDisposableStack,
): Promise<CheckedParts> {
  const [source, emulators] = await startTogether<[EmbeddedPostgres, Emulators]>(stack, [
    [startEmbeddedPostgres(), (server) => server.stop("immediate")],
    [startEmulators(), (started) => started.stop()],
  ]);
  await execute(source.url, schema);
  const [kinesis, sqs] = [kinesisClient(emulators.environment), sqsClient(emulators.environment)];
  const dynamodb = dynamodbClient(emulators.environment);
  const resources = await createResources(definition, { kinesis, dynamodb, sqs });
  return { source, emulators, kinesis, sqs, resources };
}

/** Parts that start side by side: each ends with `stack`, and one that does not start is thrown once all have come to their end. */
export async function startTogether<Parts extends readonly unknown[]>(
  stack: AsyncDisposableStack,
  starts: { readonly [I in keyof Parts]: readonly [Promise<Parts[I]>, (part: Parts[I]) => Promise<unknown>] },
): Promise<Parts> {
  const outcomes = await Promise.allSettled(
    starts.map(async ([start, end]) => {
      const part = await start;
      stack.defer(async () => void (await end(part)));
      return part;
    }),
  );
  for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
  return outcomes.map((outcome) => (outcome as PromiseFulfilledResult<unknown>).value) as unknown as Parts;
}

/** @throws CallsRefusedError where somebody made calls since the start that AWS refuses. */
export async function checkRefusals(emulators: Emulators): Promise<void> {
  const refused = await emulators.takeRefusals();
  if (refused.length > 0) throw new CallsRefusedError(refused.map(refusedText));
}

/** The last lines that capture tasks printed, each with the number of its task. */
export function lastLines(captures: readonly CaptureTask[], count: number): string[] {
  return captures.flatMap(({ log }, i) => log.slice(-count).map((text) => `capture ${i + 1}: ${text}`));
}

/** Runs statements on a session of their own. */
async function execute(url: string, statements: readonly string[]): Promise<void> {
  await withClient(url, async (client) => {
    for (const statement of statements) await client.query(statement);
  });
}

/** Runs something on a connection of its own, for which it waits a minute: the server may be on its way up after a fault. */
export async function withClient<T>(databaseUrl: string, use: (client: pg.Client) => Promise<T>): Promise<T> {
  const deadline = performance.now() + 60_000;
  for (;;) {
    const client = new pg.Client({ connectionString: databaseUrl });
    client.on("error", () => {});
    try {
      await client.connect();
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await delay(100);
      continue;
    }
    try {
      return await use(client);
    } finally {
      await client.end();
    }
  }
}
