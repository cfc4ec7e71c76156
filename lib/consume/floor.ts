import {
  type AttributeValue,
  type DynamoDBClient,
  GetItemCommand,
  UpdateItemCommand,
} from "@aws-sdk/client-dynamodb";
import type { PositionText } from "../change/position.ts";
import { floorKey } from "../state/table.ts";
import { ConsumerNotRegisteredError } from "./errors.ts";
import { callTable } from "./table-call.ts";
import { topicPattern } from "./topic-pattern.ts";

/** What of a consumer's definition its floor depends on. */
export interface RegisteredConsumer {
  readonly name: string;
  /** Topic patterns; each has its own floor, so that a topic added later starts where it was added. */
  readonly topics: readonly string[];
}

const ATTRIBUTE = "floor:";

/**
 * Gives every consumer its floor: changes at or before it are not its business. A consumer of a new pipeline starts
 * at `START_OF_HISTORY`; one added later, or a topic added to it later, at the position confirmed when it was added.
 * Never overwrites one that is there, so it is called at every start of capture, before the first record is written.
 */
export async function registerConsumers(
  dynamodb: DynamoDBClient,
  table: string,
  pipeline: string,
  consumers: readonly RegisteredConsumer[],
  floor: PositionText,
  signal: AbortSignal = AbortSignal.timeout(60_000),
): Promise<void> {
  for (const { name, topics } of consumers) {
    const names = Object.fromEntries(topics.map((topic, i) => [`#t${i}`, ATTRIBUTE + topic]));
    await callTable(`register ${name}`, signal, () =>
      dynamodb.send(
        new UpdateItemCommand({
          TableName: table,
          Key: key(pipeline, name),
          UpdateExpression: `SET ${Object.keys(names)
            .map((n) => `${n}=if_not_exists(${n},:floor)`)
            .join(",")}`,
          ExpressionAttributeNames: names,
          ExpressionAttributeValues: { ":floor": { S: floor } },
        }),
        { abortSignal: signal },
      ),
    );
  }
}

/** The floors of one consumer: read when first needed, and again while one is missing. */
export class Floors {
  readonly #dynamodb: DynamoDBClient;
  readonly #table: string;
  readonly #pipeline: string;
  readonly #consumer: string;
  #patterns: readonly { matches: (topic: string) => boolean; floor: PositionText }[] = [];
  readonly #byTopic = new Map<string, PositionText>();
  #reading: Promise<void> | undefined;

  constructor(dynamodb: DynamoDBClient, table: string, pipeline: string, consumer: string) {
    this.#dynamodb = dynamodb;
    this.#table = table;
    this.#pipeline = pipeline;
    this.#consumer = consumer;
  }

  /**
   * The floor of a topic: of the patterns that match it, the earliest.
   * @throws ConsumerNotRegisteredError
   */
  async of(topic: string, signal: AbortSignal): Promise<PositionText> {
    const known = this.#byTopic.get(topic);
    if (known !== undefined) return known;
    if (!this.#patterns.some(({ matches }) => matches(topic))) await this.#readOnce(signal);
    const floors = this.#patterns.filter(({ matches }) => matches(topic)).map(({ floor }) => floor);
    const floor = floors.sort()[0];
    if (floor === undefined) throw new ConsumerNotRegisteredError(this.#pipeline, this.#consumer, topic);
    this.#byTopic.set(topic, floor);
    return floor;
  }

  /** All groups of a batch ask at the same time. */
  async #readOnce(signal: AbortSignal): Promise<void> {
    this.#reading ??= this.#read(signal).finally(() => {
      this.#reading = undefined;
    });
    await this.#reading;
  }

  async #read(signal: AbortSignal): Promise<void> {
    const { Item = {} } = await callTable("read floor", signal, () =>
      this.#dynamodb.send(
        new GetItemCommand({
          TableName: this.#table,
          Key: key(this.#pipeline, this.#consumer),
          ConsistentRead: true,
        }),
        { abortSignal: signal },
      ),
    );
    this.#patterns = Object.entries(Item).flatMap(([name, value]) =>
      name.startsWith(ATTRIBUTE) && value.S !== undefined
        ? [{ matches: topicPattern(name.slice(ATTRIBUTE.length)), floor: value.S }]
        : [],
    );
  }
}

function key(pipeline: string, consumer: string): Record<string, AttributeValue> {
  const { pk, sk } = floorKey(pipeline, consumer);
  return { pk: { S: pk }, sk: { S: sk } };
}
