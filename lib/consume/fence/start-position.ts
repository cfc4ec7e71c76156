import type { DynamoDBClient, UpdateItemCommandOutput } from "@aws-sdk/client-dynamodb";
import type { PositionText } from "../../change/position.ts";
import { topicPattern } from "../../definition/topic-pattern.ts";
import { type StateKey, startPositionKey } from "../../state/state-key.ts";
import type { ItemUpdate, StateItem } from "../../state/state-table.ts";
import { changeTopics, formatSpans, lastStart, parseSpans, type TopicSpans } from "../api/topic-spans.ts";
import { ConsumerNotRegisteredError, refuseItem } from "../consume-errors.ts";
import { type ConsumerPlace, ConsumerTable } from "./consumer-table.ts";

/*
 * One item a consumer: `floor:<pattern>` is where it began with a topic pattern for the first time, `spans` when it had
 * which patterns since (topic-spans.ts), and `revision` counts the changes of `spans`. Older libraries know the start positions alone.
 */

/** The part of a consumer's definition that its start position depends on. */
export interface RegisteredConsumer {
  readonly name: string;
  /** Topic patterns; each has its own start position, so that a topic added later starts where it was added. */
  readonly topics: readonly string[];
  /** Where it begins if it is new, and the definition's words for it. */
  readonly start?: { readonly startAt: string; readonly position: PositionText } | undefined;
}

const ATTRIBUTE = "floor:";
/** Patterns in one update: DynamoDB takes expressions of 4 KB with 300 operators and functions. */
const PATTERNS_AT_ONCE = 50;

/**
 * Gives every consumer its start position: changes at or before it are not its business. A consumer of a new pipeline starts
 * at `START_OF_HISTORY`; one added later, or a topic added to it later, at the position confirmed when it was added, or a new one where its
 * `start` says (rule 65).
 * Never overwrites one that is there, so it is called at every start of capture, before the first record is written.
 * Notes which topics were taken from a consumer or given to it since the last start.
 */
export async function registerConsumers(
  dynamodb: DynamoDBClient,
  table: string,
  pipeline: string,
  consumers: readonly RegisteredConsumer[],
  startPosition: PositionText,
  signal: AbortSignal = AbortSignal.timeout(60_000),
): Promise<void> {
  for (const consumer of consumers) {
    const place = new ConsumerTable({ dynamodb, table, pipeline, consumer: consumer.name });
    while (!(await register(place, consumer, startPosition, signal))) signal.throwIfAborted();
  }
}

/** Returns false where another capture task has changed the item since it was read. */
async function register(
  table: ConsumerTable,
  { topics, start }: RegisteredConsumer,
  confirmed: PositionText,
  signal: AbortSignal,
): Promise<boolean> {
  // A write that reads: it begins the item of a consumer that has none.
  const { Attributes: item } =
    (await update(table, signal, {
      UpdateExpression: "SET revision=if_not_exists(revision,:none)",
      ExpressionAttributeValues: { ":none": { N: "0" } },
      ReturnValues: "ALL_NEW",
    })) ?? {};
  const begins = start && isNew(item) ? start : undefined;
  const position = begins?.position ?? confirmed;
  const { revision, spans: changed, missing } = registrationOf(item, topics, position);
  if (changed) {
    const written = await update(table, signal, {
      UpdateExpression: `SET spans=:spans,revision=:next${begins ? ",startAt=:startAt" : ""}`,
      ConditionExpression: "revision=:was",
      ExpressionAttributeValues: {
        ":spans": { S: formatSpans(changed) },
        ":next": { N: String(revision + 1) },
        ":was": { N: String(revision) },
        ...(begins ? { ":startAt": { S: begins.startAt } } : {}),
      },
    });
    if (!written) return false;
  }
  for (let i = 0; i < missing.length; i += PATTERNS_AT_ONCE) {
    const part = missing.slice(i, i + PATTERNS_AT_ONCE);
    await update(table, signal, {
      UpdateExpression: `SET ${part.map((_, n) => `#t${n}=if_not_exists(#t${n},:t${n})`).join(",")}`,
      ExpressionAttributeNames: Object.fromEntries(
        part.map(({ pattern }, n) => [`#t${n}`, ATTRIBUTE + pattern]),
      ),
      ExpressionAttributeValues: Object.fromEntries(
        part.map(({ startPosition }, n) => [`:t${n}`, { S: startPosition }]),
      ),
    });
  }
  return true;
}

/** What registering a consumer with these topics at a position writes; `item`: what stands of it, undefined for a new one. @throws StateItemError */
function registrationOf(item: StateItem | undefined, topics: readonly string[], position: PositionText) {
  const revision = Number(item?.revision?.N ?? "0");
  const before = spansOf(item);
  const spans = changeTopics(before, topics, revision + 1, position);
  const missing = topics
    .filter((pattern) => item?.[ATTRIBUTE + pattern] === undefined)
    .map((pattern) => ({
      pattern,
      startPosition: (spans ?? before)[pattern]?.[0]?.position ?? position,
    }));
  return { revision, before, spans, missing };
}

/** The changes that registering a consumer would bring it. */
export interface PlannedRegistration {
  readonly consumer: string;
  /** It has no start position yet. */
  readonly isNew: boolean;
  /** The `startAt` that it began with. */
  readonly startAt: string | undefined;
  /** Topic patterns that it begins with, and where. */
  readonly taken: readonly { readonly pattern: string; readonly startPosition: PositionText }[];
  /** Topic patterns that it had, and gives up. */
  readonly givenUp: readonly string[];
}

/** Says what `registerConsumers` would change for one consumer now; writes nothing. @throws StateItemError, FenceUnavailableError */
export async function planRegistration(
  place: ConsumerPlace,
  topics: readonly string[],
  position: PositionText,
  signal: AbortSignal,
): Promise<PlannedRegistration> {
  const table = new ConsumerTable(place);
  const item = await table.until(signal, `read the start positions of ${place.consumer}`).get(keyOf(table));
  const { before, spans, missing } = registrationOf(item, topics, position);
  const after = spans ?? before;
  const begun = topics.filter((pattern) => !isHeld(before, pattern));
  return {
    consumer: place.consumer,
    isNew: isNew(item),
    startAt: item?.startAt?.S,
    taken: [...new Set([...begun, ...missing.map(({ pattern }) => pattern)])].map((pattern) => ({
      pattern,
      startPosition: after[pattern]?.at(-1)?.position ?? position,
    })),
    givenUp: Object.keys(before).filter((pattern) => isHeld(before, pattern) && !topics.includes(pattern)),
  };
}

/** It has no start position yet. @throws StateItemError */
function isNew(item: StateItem | undefined): boolean {
  return Object.keys(spansOf(item)).length === 0;
}

function isHeld(spans: TopicSpans, pattern: string): boolean {
  return spans[pattern]?.some(({ until }) => until === undefined) ?? false;
}

/** The start positions of one consumer: read when first needed, and again while one is missing. */
export class StartPositions {
  readonly #table: ConsumerTable;
  #patterns: readonly { matches: (topic: string) => boolean; startPosition: PositionText }[] = [];
  #spans: TopicSpans = {};
  readonly #byTopic = new Map<string, PositionText>();
  #reading: Promise<void> | undefined;

  constructor(table: ConsumerTable) {
    this.#table = table;
  }

  /**
   * The start position of a topic: of the patterns that match it, the earliest.
   * @throws ConsumerNotRegisteredError
   */
  async of(topic: string, signal: AbortSignal): Promise<PositionText> {
    const known = this.#byTopic.get(topic);
    if (known !== undefined) return known;
    if (!this.#patterns.some(({ matches }) => matches(topic))) await this.#readOnce(signal);
    const startPositions = this.#patterns
      .filter(({ matches }) => matches(topic))
      .map(({ startPosition }) => startPosition);
    const startPosition = startPositions.sort()[0];
    const { pipeline, consumer } = this.#table;
    if (startPosition === undefined) throw new ConsumerNotRegisteredError(pipeline, consumer, topic);
    this.#byTopic.set(topic, startPosition);
    return startPosition;
  }

  /**
   * Returns where the consumer began with a topic that it had given up before, if all up to `missing` stands at or before that:
   * then it is not its business. Undefined: it is, as far as capture knows.
   */
  async startedAgain(
    topic: string,
    missing: PositionText,
    signal: AbortSignal,
  ): Promise<PositionText | undefined> {
    const start = () => {
      const position = lastStart(this.#spans, topic);
      return position !== undefined && position >= missing ? position : undefined;
    };
    const known = start();
    if (known !== undefined) return known;
    // A deploy gives the topic to the function first, and to the capture task behind it.
    await this.#readOnce(signal);
    return start();
  }

  /** All groups of a batch ask at the same time. */
  async #readOnce(signal: AbortSignal): Promise<void> {
    this.#reading ??= this.#read(signal).finally(() => {
      this.#reading = undefined;
    });
    await this.#reading;
  }

  async #read(signal: AbortSignal): Promise<void> {
    const table = this.#table.until(signal, `read the start positions of ${this.#table.consumer}`);
    const item = await table.get(keyOf(this.#table));
    this.#patterns = Object.entries(positionsByPattern(item)).map(([pattern, startPosition]) => ({
      matches: topicPattern(pattern),
      startPosition,
    }));
    this.#spans = spansOf(item);
  }
}

/** The positions that an item holds. */
export function positionsOf(item: StateItem): PositionText[] {
  const starts = Object.values(spansOf(item)).flatMap((spans) => spans.map(({ position }) => position));
  return [...Object.values(positionsByPattern(item)), ...starts];
}

function positionsByPattern(item: StateItem | undefined): Record<string, PositionText> {
  return Object.fromEntries(
    Object.entries(item ?? {}).flatMap(([name, { S: startPosition }]) =>
      name.startsWith(ATTRIBUTE) && startPosition !== undefined
        ? [[name.slice(ATTRIBUTE.length), startPosition]]
        : [],
    ),
  );
}

/**
 * Returns the spans of an item. A topic of which it has the start position alone, as older libraries write it, was never given up.
 * @throws StateItemError
 */
function spansOf(item: StateItem | undefined): TopicSpans {
  const startPositions = Object.entries(positionsByPattern(item));
  const known = startPositions.map(([pattern, position]) => [pattern, [{ since: 0, position }]] as const);
  return { ...Object.fromEntries(known), ...parseSpans(item?.spans?.S, refuseItem(item ?? {}, "spans")) };
}

/** Returns undefined where the condition does not hold. */
function update(
  table: ConsumerTable,
  signal: AbortSignal,
  update: ItemUpdate,
): Promise<UpdateItemCommandOutput | undefined> {
  return table.until(signal, `register ${table.consumer}`).update(keyOf(table), update);
}

function keyOf(table: ConsumerTable): StateKey {
  return startPositionKey(table);
}
