import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { CreateTableCommand, type DynamoDBClient, waitUntilTableExists } from "@aws-sdk/client-dynamodb";
import { dynamodbClient } from "../../../lib/aws/clients.ts";
import { START_OF_HISTORY } from "../../../lib/change/position.ts";
import { consumer } from "../../../lib/consume/api/consumer.ts";
import { Operation } from "../../../lib/consume/api/operation.ts";
import { ConsumerTable } from "../../../lib/consume/fence/consumer-table.ts";
import { Fence } from "../../../lib/consume/fence/fence.ts";
import { GROUP_SIZE } from "../../../lib/consume/fence/fence-item.ts";
import { registerConsumers } from "../../../lib/consume/fence/start-position.ts";
import { ParkedKeys } from "../../../lib/consume/hold/parked-keys.ts";
import { startEmulators } from "../../../lib/local/emulators.ts";
import { CaptureState } from "../../../lib/state/capture-state.ts";
import { OrderedWriter } from "../../../lib/stream/ordered-writer.ts";
import { change } from "../../stream/changes.ts";
import { DEFAULT_LIMITS } from "../../stream/kinesis.ts";
import { at, packed, TOPIC } from "../../unit/consume/records.ts";

/** What a step costs: write units of the state table, and memory. */
export type StateCost = Readonly<Record<string, number>>;

/** How the cost of the state table and of memory grows. */
export interface StateRow {
  readonly name: string;
  readonly grows: string;
  readonly steps: readonly number[];
  measure(step: number, table: MeteredTable): Promise<StateCost>;
}

/** A fresh table that counts the write units of what is sent to it, as DynamoDB charges them. */
export interface MeteredTable {
  readonly dynamodb: DynamoDBClient;
  readonly name: string;
  /** The units since the last time it was asked. */
  units(): number;
}

const { signal } = new AbortController();
const PIPELINE = "shop";
const CONSUMER = "search";

/** The rows of "How cost grows" (docs/13) that need no source. */
export const STATE_ROWS: readonly StateRow[] = [
  {
    name: "stored-tables",
    grows: "tables, 64 partitions each: what capture stores, and the writer's queues",
    steps: [10, 100, 1_000, 5_000],
    async measure(count, table) {
      const topics = Array.from({ length: count }, (_, i) => ({ name: `shop.public.t${i}`, partitions: 64 }));
      const place = {
        dynamodb: table.dynamodb,
        table: table.name,
        pipeline: PIPELINE,
        signal,
        log: () => {},
      };
      const state = await CaptureState.take({ ...place, leaseMs: 600_000 });
      const tables = Object.fromEntries(
        topics.map(({ name, partitions }, i) => [`public.t${i}`, { topic: name, partitions, key: ["id"] }]),
      );
      table.units();
      await state.writeSettings({ keyFormat: "murmur3/1", publication: "p", slot: "s", tables });
      const start = table.units();
      await state.confirm();
      const beat = table.units();
      await state.release();
      return { "units a beat": beat, "units at a start": start, "MB of queues": queuesMB(topics) };
    },
  },
  {
    name: "parked-keys",
    grows: "parked keys in each of 32 partitions",
    steps: [0, 1, 16, 256],
    async measure(count, table) {
      await register(table, ["shop.*"]);
      const fence = new Fence(
        new ConsumerTable({
          dynamodb: table.dynamodb,
          table: table.name,
          pipeline: PIPELINE,
          consumer: CONSUMER,
        }),
      );
      const partitions = Array.from({ length: GROUP_SIZE }, (_, i) => i);
      const keys = new ParkedKeys();
      for (let i = 0; i < count; i++) keys.add(`key ${i}`, "parked", at(1), 1);
      const place = { topic: TOPIC, group: 0 };
      const taken = await fence.take(place, partitions, "seed", signal);
      const own = [...taken].map(([partition, { token }]) => ({
        progress: {
          ...{ partition, position: at(1), writer: 1, attempts: undefined },
          parked: keys.format(at(1)),
        },
        token,
      }));
      await fence.close(place, own, signal);
      const invoke = handlerOf(table);
      table.units();
      await invoke(partitions.map((partition) => row(partition, 2, "another")));
      const others = table.units();
      await invoke(partitions.map((partition) => row(partition, 3, "key 0")));
      return { "units an invocation": others, "units where each partition parks one more": table.units() };
    },
  },
  {
    name: "consumer-topics",
    grows: "topics of a consumer; an invocation has 64 changes, spread evenly",
    steps: [1, 10, 64, 400],
    async measure(count, table) {
      const topics = Array.from({ length: count }, (_, i) => `shop.public.t${i}`);
      await register(table, topics);
      const first = table.units();
      await register(table, topics);
      const start = table.units();
      const invoke = handlerOf(table);
      const records = (commit: number) =>
        Array.from({ length: 64 }, (_, i) => row(Math.floor(i / count), commit, `${i}`, topics[i % count]));
      await invoke(records(1));
      table.units();
      await invoke(records(2));
      const invocation = table.units();
      return { "units when new": first, "units at a start": start, "units an invocation": invocation };
    },
  },
];

function row(partition: number, commit: number, id: string, topic = TOPIC) {
  const change = { at: commit, after: commit === 1 ? null : commit - 1, op: "u", row: { id } } as const;
  return packed([change], { partition, topic });
}

async function register(table: MeteredTable, topics: readonly string[]): Promise<void> {
  await registerConsumers(
    table.dynamodb,
    table.name,
    PIPELINE,
    [{ name: CONSUMER, topics }],
    START_OF_HISTORY,
    signal,
  );
}

function handlerOf(table: MeteredTable) {
  const handler = consumer(CONSUMER)
    .on("*", Operation.Update, () => {})
    .handler({
      environment: {
        TRIBUTARY_STATE_TABLE: table.name,
        TRIBUTARY_PIPELINE_NAME: PIPELINE,
        TRIBUTARY_POISON: "stop",
      },
      dynamodb: table.dynamodb,
      observer: { invocation: () => {} },
    });
  return async (records: ReturnType<typeof row>[]): Promise<void> => {
    const context = { getRemainingTimeInMillis: () => 60_000 };
    const { batchItemFailures } = await handler({ Records: records }, context);
    if (batchItemFailures.length > 0) throw new Error("an invocation of the bench failed");
  };
}

/** Memory of a writer that has written into each partition, and is idle. */
function queuesMB(topics: readonly { readonly name: string; readonly partitions: number }[]): number {
  const before = usedBytes();
  const writer = new OrderedWriter({
    writer: 1,
    packing: "batch",
    limits: DEFAULT_LIMITS,
    random: () => 0.5,
  });
  let commit = 0n;
  for (const topic of topics) {
    commit++;
    for (let partition = 0; partition < topic.partitions; partition++)
      writer.offer(change(topic, partition, commit, partition + 1), 0);
    writer.offer({ kind: "commit", endPlace: commit, commitTimeMs: 0 }, 0);
    for (let request = writer.take(0); request; request = writer.take(0))
      writer.settle(
        request,
        request.entries.map(() => "stored"),
        0,
      );
  }
  const bytes = usedBytes() - before;
  if (writer.acknowledged?.place !== commit) throw new Error("the writer of the bench did not get through");
  return Number((bytes / 1e6).toFixed(1));
}

function usedBytes(): number {
  setFlagsFromString("--expose-gc");
  (runInNewContext("gc") as () => void)();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

/** Measures the steps of a row, each on a table of its own. */
export async function measureState(row: StateRow): Promise<readonly { step: number; cost: StateCost }[]> {
  const emulators = await startEmulators();
  const client = dynamodbClient(emulators.environment);
  try {
    const measured: { step: number; cost: StateCost }[] = [];
    for (const step of row.steps) {
      const name = `bench-${row.name}-${step}`;
      await client.send(
        new CreateTableCommand({
          TableName: name,
          BillingMode: "PAY_PER_REQUEST",
          AttributeDefinitions: ["pk", "sk"].map((AttributeName) => ({ AttributeName, AttributeType: "S" })),
          KeySchema: [
            { AttributeName: "pk", KeyType: "HASH" },
            { AttributeName: "sk", KeyType: "RANGE" },
          ],
        }),
      );
      await waitUntilTableExists({ client, maxWaitTime: 30, minDelay: 1 }, { TableName: name });
      measured.push({ step, cost: await row.measure(step, metered(client, name)) });
    }
    return measured;
  } finally {
    client.destroy();
    await emulators.stop();
  }
}

const WRITES = /^(Update|Put|Delete)Item/;

function metered(client: DynamoDBClient, name: string): MeteredTable {
  let units = 0;
  const send = async (
    command: { readonly constructor: { readonly name: string }; readonly input: object },
    options: object,
  ) => {
    Object.assign(command.input, { ReturnConsumedCapacity: "TOTAL" });
    const answer = await client.send(command as never, options);
    const { ConsumedCapacity } = answer as { ConsumedCapacity?: { CapacityUnits?: number } };
    if (WRITES.test(command.constructor.name)) units += ConsumedCapacity?.CapacityUnits ?? 0;
    return answer;
  };
  return {
    dynamodb: { send } as unknown as DynamoDBClient,
    name,
    units() {
      const since = units;
      units = 0;
      return since;
    },
  };
}
