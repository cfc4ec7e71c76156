import {
  type AttributeValue,
  ConditionalCheckFailedException,
  DescribeTableCommand,
  DynamoDBClient,
  GetItemCommand,
  PutItemCommand,
  ScanCommand,
  UpdateItemCommand,
} from "@aws-sdk/client-dynamodb";
import {
  type ChangeEvent,
  type ColumnValue,
  Operation,
  type SinkRow,
  type VerifiableTable,
} from "tributary-cdc";
import { type Sink, sinkConsumer } from "tributary-cdc/sink";

/*
 * Example of a sink that takes one change at a time: one DynamoDB item a customer, written only where the change's
 * position is above the item's. A delete leaves an item with nothing but its position, which DynamoDB's TTL removes
 * after a day: without it, a late write from before the delete would bring the customer back.
 */

const client = new DynamoDBClient();
const TableName = process.env.CUSTOMER_TABLE;
const TOMBSTONE_SECONDS = 24 * 3600;

/** Customers as items. */
export const customers: Sink = {
  tables: ["public.customers"],
  maxEvents: 1,
  async apply(events) {
    for (const event of events) await apply(event);
  },
  // What a backfill did not find in the source any more stands below where it began.
  sweep: ({ partition, before }) => buryBelow({ partition, position: before }),
  async identity() {
    const { Table } = await client.send(new DescribeTableCommand({ TableName }));
    return { id: Table?.TableId ?? `${Table?.TableArn}/${Table?.CreationDateTime?.getTime()}` };
  },
  verify: {
    table: ({ schema, table }) => (schema === "public" && table === "customers" ? held : undefined),
  },
};

export const handler = sinkConsumer("customer-view", customers).handler();

/** For `tributary verify`. */
export const sink = customers.verify;

/** The customers that are held. */
const held: VerifiableTable = {
  async *rows(signal) {
    let from: Record<string, AttributeValue> | undefined;
    do {
      const page = await client.send(
        new ScanCommand({ TableName, ConsistentRead: true, ...(from ? { ExclusiveStartKey: from } : {}) }),
        { abortSignal: signal },
      );
      yield (page.Items ?? []).filter((item) => !item.deleted?.BOOL).map(values);
      from = page.LastEvaluatedKey;
    } while (from);
  },
  async row({ id }, signal) {
    const { Item } = await client.send(
      new GetItemCommand({ TableName, ConsistentRead: true, Key: { id: { S: String(id) } } }),
      { abortSignal: signal },
    );
    return Item && !Item.deleted?.BOOL ? values(Item) : undefined;
  },
};

async function apply(event: ChangeEvent): Promise<void> {
  switch (event.operation) {
    case Operation.Create:
    case Operation.Read:
      return whereNewer(
        new PutItemCommand({
          TableName,
          Item: { ...attributes(event.row), ...place(event) },
          ...newer(event),
        }),
      );
    case Operation.Update:
      return update(event);
    case Operation.Delete:
      return bury(attribute(event.row.id), event);
    case Operation.Truncate:
      return buryBelow(event);
    default:
      // A logical message concerns no customer.
      return undefined;
  }
}

/** Large values that did not change do not travel (`event.unchanged`): only what came is set. */
function update(event: ChangeEvent<typeof Operation.Update>): Promise<void> {
  const set = Object.entries({ ...attributes(event.row), ...place(event) }).filter(([name]) => name !== "id");
  return whereNewer(
    new UpdateItemCommand({
      TableName,
      Key: { id: attribute(event.row.id) },
      UpdateExpression: `SET ${set.map((_, i) => `#c${i} = :c${i}`).join(", ")}`,
      ConditionExpression: newer(event).ConditionExpression,
      ExpressionAttributeNames: {
        ...newer(event).ExpressionAttributeNames,
        ...Object.fromEntries(set.map(([name], i) => [`#c${i}`, name])),
      },
      ExpressionAttributeValues: {
        ...newer(event).ExpressionAttributeValues,
        ...Object.fromEntries(set.map(([, value], i) => [`:c${i}`, value])),
      },
    }),
  );
}

/** Position and partition of a change. */
type ChangePlace = Pick<ChangeEvent, "partition" | "position">;

/** Older customers of this partition go. Rare enough for a scan, which reads consistently as an index would not. */
async function buryBelow(event: ChangePlace): Promise<void> {
  let from: Record<string, AttributeValue> | undefined;
  do {
    const page = await client.send(
      new ScanCommand({
        TableName,
        ConsistentRead: true,
        ProjectionExpression: "id",
        FilterExpression: "#partition = :partition AND #position < :position",
        ExpressionAttributeNames: { "#partition": "partition", "#position": "position" },
        ExpressionAttributeValues: {
          ":partition": { N: String(event.partition) },
          ":position": { S: event.position },
        },
        ...(from ? { ExclusiveStartKey: from } : {}),
      }),
    );
    for (const { id } of page.Items ?? []) if (id) await bury(id, event);
    from = page.LastEvaluatedKey;
  } while (from);
}

function bury(id: AttributeValue, event: ChangePlace): Promise<void> {
  const expiresAt = { N: String(Math.floor(Date.now() / 1000) + TOMBSTONE_SECONDS) };
  const Item = { id, deleted: { BOOL: true }, expiresAt, ...place(event) };
  return whereNewer(new PutItemCommand({ TableName, Item, ...newer(event) }));
}

/** A refused condition means that the item has a later state already: nothing to do. */
async function whereNewer(command: PutItemCommand | UpdateItemCommand): Promise<void> {
  try {
    await (command instanceof PutItemCommand ? client.send(command) : client.send(command));
  } catch (error) {
    if (!(error instanceof ConditionalCheckFailedException)) throw error;
  }
}

function newer(event: ChangePlace) {
  return {
    ConditionExpression: "attribute_not_exists(#position) OR #position < :position",
    ExpressionAttributeNames: { "#position": "position" },
    ExpressionAttributeValues: { ":position": { S: event.position } },
  };
}

function place(event: ChangePlace): Record<string, AttributeValue> {
  return { position: { S: event.position }, partition: { N: String(event.partition) } };
}

function attributes(row: Readonly<Record<string, ColumnValue>>): Record<string, AttributeValue> {
  return Object.fromEntries(Object.entries(row).map(([column, value]) => [column, attribute(value)]));
}

/** Numbers come as text where JavaScript would lose digits, and stay text here. */
function attribute(value: ColumnValue | undefined): AttributeValue {
  if (value === null || value === undefined) return { NULL: true };
  if (typeof value === "boolean") return { BOOL: value };
  if (typeof value === "number" || typeof value === "bigint") return { N: String(value) };
  return { S: typeof value === "string" ? value : JSON.stringify(value) };
}

/** Columns only: what the sink keeps for itself is left out. */
function values(item: Record<string, AttributeValue>): SinkRow {
  const { position: _, partition: __, ...columns } = item;
  return Object.fromEntries(
    Object.entries(columns).map(([column, value]) => [column, value.S ?? value.N ?? value.BOOL ?? null]),
  );
}
