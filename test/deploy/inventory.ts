import { type DynamoDBClient, ListTablesCommand } from "@aws-sdk/client-dynamodb";
import { type KinesisClient, ListStreamsCommand } from "@aws-sdk/client-kinesis";
import { ListBucketsCommand, type S3Client } from "@aws-sdk/client-s3";
import { ListQueuesCommand, type SQSClient } from "@aws-sdk/client-sqs";
import type { Cloud } from "./cloud.ts";
import { listFunctions, listLogGroups, listMonitoring, listServices } from "./deployed.ts";

/** Clients of one cloud. */
export interface Clients {
  readonly kinesis: KinesisClient;
  readonly dynamodb: DynamoDBClient;
  readonly sqs: SQSClient;
  readonly s3: S3Client;
}

/** Names of what a stack has in AWS, by kind: of everything that holds data, runs or costs. */
export async function inventory(
  cloud: Cloud,
  stack: string,
  clients: Clients,
): Promise<Record<string, string[]>> {
  const { kinesis, dynamodb, sqs, s3 } = clients;
  const [streams, tables, queues, buckets] = await Promise.all([
    kinesis.send(new ListStreamsCommand({ Limit: 100 })),
    dynamodb.send(new ListTablesCommand({ Limit: 100 })),
    sqs.send(new ListQueuesCommand({ MaxResults: 1000 })),
    s3.send(new ListBucketsCommand({})),
  ]);
  // CDK makes names of its own begin with the stack's; of buckets and streams in lower case.
  const ours = (names: readonly (string | undefined)[] | undefined) =>
    (names ?? []).filter((name) => name?.includes(stack)) as string[];
  return {
    streams: ours(streams.StreamNames),
    tables: ours(tables.TableNames),
    queues: ours(queues.QueueUrls),
    buckets: ours(buckets.Buckets?.map(({ Name }) => Name)),
    services: (await listServices(cloud, stack)).map(({ service }) => service),
    functions: (await listFunctions(cloud, stack)).map(({ FunctionName }) => FunctionName),
    alarmsAndDashboards: await listMonitoring(cloud, stack),
    logGroups: await listLogGroups(cloud, stack),
  };
}
