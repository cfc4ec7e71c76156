import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { DynamoDBClient } from "@aws-sdk/client-dynamodb";
import type { KinesisStreamBatchResponse, KinesisStreamEvent, KinesisStreamRecord } from "aws-lambda";
import { consumer, Operation } from "tributary-cdc";
import { dynamodbClient } from "../../../lib/aws/clients.ts";
import type { ChangeEventJson } from "../../../lib/change/event.ts";
import { START_OF_HISTORY } from "../../../lib/change/position.ts";
import { registerConsumers } from "../../../lib/consume/fence/start-position.ts";
import { createTable } from "../../../lib/local/resources.ts";
import { countRequests, type Requests } from "./requests.ts";

/**
 * What a handler does with an event: nothing, nothing as an async function, or it keeps the newest row of each key in a
 * Map.
 */
export type Effect = "no-op" | "async no-op" | "upsert";

/** A Lambda handler that is measured. */
export interface Subject {
  readonly requests: Requests;
  /** What took effect so far: events handled, and the rows that are kept. */
  readonly done: { events: number; rows: ReadonlyMap<unknown, unknown> };
  handle(event: KinesisStreamEvent): Promise<KinesisStreamBatchResponse>;
}

/** Where the state of a subject is. */
export interface Place {
  readonly environment: Readonly<Record<string, string>>;
  /** Folder of the peers' packages. */
  readonly peers: string;
}

const TIMEOUT_MS = 600_000;
const ROWS_OPERATIONS = [Operation.Create, Operation.Update, Operation.Delete] as const;

/** Tributary's handler as an application would write it; the line of metrics is made and dropped. */
export async function tributary(place: Place, effect: Effect, call: "on" | "onBatch"): Promise<Subject> {
  const dynamodb = dynamodbClient(place.environment);
  const table = "state";
  await createTable(dynamodb, table, ["pk", "sk"]);
  await registerConsumers(dynamodb, table, "bench", [{ name: "bench", topics: ["*"] }], START_OF_HISTORY);
  const rows = new Map<unknown, unknown>();
  const done = { events: 0, rows };
  const upsert = (event: { operation: string; key: { id?: unknown }; after: unknown }) => {
    if (event.operation === Operation.Delete) rows.delete(event.key.id);
    else rows.set(event.key.id, event.after);
  };
  const bench = consumer("bench");
  if (call === "onBatch") {
    bench.onBatch("public.orders", { operations: ROWS_OPERATIONS, maxEvents: 1000 }, (events) => {
      done.events += events.length;
      if (effect === "upsert") for (const event of events) upsert(event);
    });
  } else {
    const handle = (event: Parameters<typeof upsert>[0]) => {
      done.events++;
      if (effect === "upsert") upsert(event);
    };
    bench.on(
      "public.orders",
      ROWS_OPERATIONS,
      effect === "async no-op" ? async (event) => handle(event) : handle,
    );
  }
  const handler = bench.handler({
    dynamodb,
    environment: {
      ...place.environment,
      TRIBUTARY_STATE_TABLE: table,
      TRIBUTARY_PIPELINE_NAME: "bench",
      // Never called: nothing fails.
      TRIBUTARY_DEAD_LETTER_QUEUE_URL: "http://127.0.0.1:9/dead-letters",
    },
    write: () => {},
  });
  const requests = countRequests(dynamodb);
  return {
    requests,
    done,
    handle: (event) => handler(event, { getRemainingTimeInMillis: () => TIMEOUT_MS }),
  };
}

/** The packages that are compared with. */
export const POWERTOOLS = {
  "@aws-lambda-powertools/batch": "2.35.0",
  "@aws-lambda-powertools/idempotency": "2.35.0",
  "@aws-sdk/client-dynamodb": "3.1162.0",
  "@aws-sdk/lib-dynamodb": "3.1162.0",
};

/** What is used of them: https://docs.aws.amazon.com/powertools/typescript/latest/features/idempotency/ */
interface Powertools {
  readonly BatchProcessor: new (type: string) => object;
  readonly processPartialResponse: (
    event: KinesisStreamEvent,
    handler: (record: KinesisStreamRecord) => Promise<unknown>,
    processor: object,
    options: object,
  ) => Promise<KinesisStreamBatchResponse>;
  readonly makeIdempotent: <F>(handler: F, options: object) => F;
  readonly IdempotencyConfig: new (options: object) => { registerLambdaContext(context: object): void };
  readonly DynamoDBPersistenceLayer: new (options: object) => object;
  readonly DynamoDBClient: new (options: object) => DynamoDBClient;
}

/** Powertools batch with idempotency by record, as its documentation has it; in parallel, which keeps no order, or not. */
export async function powertools(place: Place, effect: Effect, processInParallel: boolean): Promise<Subject> {
  process.env.AWS_LAMBDA_FUNCTION_NAME = "bench";
  const tools = await loadPowertools(place.peers);
  const table = "idempotency";
  const client = dynamodbClient(place.environment);
  await createTable(client, table, ["id"]);
  const { AWS_ENDPOINT_URL_DYNAMODB: endpoint, AWS_REGION: region } = place.environment;
  const credentials = { accessKeyId: "local", secretAccessKey: "local" };
  const awsSdkV3Client = new tools.DynamoDBClient({
    ...{ endpoint, region, credentials },
    // As many connections as ours has.
    requestHandler: { httpAgent: { keepAlive: true, maxSockets: 128 } },
  });
  const requests = countRequests(awsSdkV3Client);
  const rows = new Map<unknown, unknown>();
  const done = { events: 0, rows };
  const config = new tools.IdempotencyConfig({ eventKeyJmesPath: "eventID" });
  const handle = tools.makeIdempotent(
    async (record: KinesisStreamRecord) => {
      const event = JSON.parse(Buffer.from(record.kinesis.data, "base64").toString()) as ChangeEventJson;
      done.events++;
      if (effect !== "upsert") return;
      if (event.op === "d") rows.delete(event.before?.id);
      else rows.set(event.after?.id, event.after);
    },
    { persistenceStore: new tools.DynamoDBPersistenceLayer({ tableName: table, awsSdkV3Client }), config },
  );
  const processor = new tools.BatchProcessor("KinesisDataStreams");
  const context = { getRemainingTimeInMillis: () => TIMEOUT_MS };
  return {
    requests,
    done,
    handle(event) {
      config.registerLambdaContext(context);
      return tools.processPartialResponse(event, handle, processor, { context, processInParallel });
    },
  };
}

async function loadPowertools(folder: string): Promise<Powertools> {
  const require = createRequire(pathToFileURL(join(folder, "package.json")));
  const names = [
    "@aws-lambda-powertools/batch",
    "@aws-lambda-powertools/idempotency",
    "@aws-lambda-powertools/idempotency/dynamodb",
    "@aws-sdk/client-dynamodb",
  ];
  return Object.assign({}, ...names.map((name) => require(name))) as Powertools;
}
