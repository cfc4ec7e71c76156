import {
  type AttributeValue,
  ConditionalCheckFailedException,
  type DynamoDBClient,
  GetItemCommand,
  UpdateItemCommand,
  type UpdateItemCommandInput,
} from "@aws-sdk/client-dynamodb";
import type { PositionText } from "../change/position.ts";
import { fenceKey } from "../state/table.ts";
import { ParkedKeysMissingError, type PartitionName, StateItemError } from "./errors.ts";
import { groupOf, readPartition, readToken, storedKeys } from "./fence-item.ts";
import { counterAhead, FenceToken, GIVEN_BACK } from "./fence-token.ts";
import type { Hold } from "./hold.ts";
import { ParkedKeys } from "./parked-keys.ts";
import { ParkedLists } from "./parked-lists.ts";
import type { RunningCall } from "./running-calls.ts";
import { callTable } from "./table-call.ts";

/** A redrive that has not renewed its lease for so long is dead; clocks of two machines may differ by a part of it. */
const LEASE_MS = 60_000;
const RENEWAL_MS = 15_000;

/** A partition as redrive sees it. */
export interface FencedPartition {
  /** Changes of a chain beyond it are not parked for good: they come again. */
  readonly mark: PositionText;
  /** See `ParkedKeys`. */
  readonly parked: string | undefined;
  /** What the fence holds or names as that list. */
  readonly stored: string | undefined;
  /** While it is held. */
  readonly hold?: Hold | undefined;
  /** What an invocation would take it from. */
  readonly token: string | undefined;
  /** Whether an invocation holds it, or died there. */
  readonly held: boolean;
  /** A call that ran on when its invocation ended. */
  readonly running: RunningCall | undefined;
  /** See `StoredPartition`. */
  readonly fault: string | undefined;
}

/**
 * Gives leases to redrives: one redrive at a time in a partition, and no key is overtaken there meanwhile. Attribute
 * `r<p>` names the lease, `u<p>` is when it ends. The end stays when the lease is given back and only grows, so a late
 * duplicate of any request changes nothing (rule 37).
 */
export class RedriveLeases {
  readonly #dynamodb: DynamoDBClient;
  readonly #table: string;
  readonly #pipeline: string;
  readonly #consumer: string;
  readonly #lists: ParkedLists;
  #taken = 0;

  constructor(dynamodb: DynamoDBClient, table: string, pipeline: string, consumer: string) {
    this.#dynamodb = dynamodb;
    this.#table = table;
    this.#pipeline = pipeline;
    this.#consumer = consumer;
    this.#lists = new ParkedLists(dynamodb, table, pipeline, consumer);
  }

  /** A lease that is renewed until it is given back; undefined while another redrive has one. */
  async take(
    topic: string,
    partition: number,
    owner: string,
    signal: AbortSignal,
  ): Promise<RedriveLease | undefined> {
    const item = this.#item(topic, partition, signal);
    const [r, u] = [`r${partition}`, `u${partition}`];
    const name = `${owner}.${++this.#taken}`;
    for (let end = leaseEnd(); ; ) {
      const taken = await item.update("take for redrive", {
        UpdateExpression: `SET ${r}=:r,${u}=:u`,
        ConditionExpression: `(attribute_not_exists(${r}) OR ${u}<:now) AND (attribute_not_exists(${u}) OR ${u}<:u)`,
        ExpressionAttributeValues: {
          ":r": { S: name },
          ":u": { N: String(end) },
          ":now": { N: String(Date.now()) },
        },
      });
      const stored = taken ? undefined : readLease(await item.read(), partition);
      if (!stored || stored.name === name) return new RedriveLease(item, name, end);
      if (stored.name !== undefined && stored.end >= Date.now()) return undefined;
      // It is free, and was given back by one whose clock is ahead of ours.
      end = Math.max(leaseEnd(), stored.end + 1);
    }
  }

  /** How a partition stands now. */
  async look(topic: string, partition: number, signal: AbortSignal): Promise<FencedPartition> {
    return readFenced(this.#item(topic, partition, signal));
  }

  /** Removes lists of a partition's parked keys that processes left which died. */
  async removeOrphans(topic: string, partition: number, signal: AbortSignal): Promise<void> {
    const item = this.#item(topic, partition, signal);
    const named = async () => readPartition(await item.read(), partition).parked;
    await this.#lists.removeOrphans({ topic, partition }, named, signal);
  }

  #item(topic: string, partition: number, signal: AbortSignal): FenceItem {
    const { pk, sk } = fenceKey(this.#pipeline, this.#consumer, topic, groupOf(partition));
    const key = { pk: { S: pk }, sk: { S: sk } };
    const place = { topic, partition };
    return new FenceItem(this.#dynamodb, this.#table, key, { place, lists: this.#lists, signal });
  }
}

/**
 * The right to bring the parked changes of one partition to effect. Invocations go on meanwhile: what they do not
 * touch (keys that are parked) is all that redrive touches. Both meet where a key is parked no more.
 */
export class RedriveLease {
  readonly #item: FenceItem;
  readonly #partition: number;
  readonly #name: string;
  readonly #renewal: NodeJS.Timeout;
  #end: number;

  constructor(item: FenceItem, name: string, end: number) {
    this.#item = item;
    this.#partition = item.place.partition;
    this.#name = name;
    this.#end = end;
    // A handler may take its time; where the lease is lost, the question before the next effect tells.
    this.#renewal = setInterval(() => void this.isOurs().catch(() => {}), RENEWAL_MS).unref();
  }

  /** How the partition stands now. */
  async read(): Promise<FencedPartition> {
    return readFenced(this.#item);
  }

  /** Whether the lease still is this redrive's: asked before each effect. */
  async isOurs(): Promise<boolean> {
    const [r, u] = [`r${this.#partition}`, `u${this.#partition}`];
    const end = Math.max(leaseEnd(), this.#end + 1);
    this.#end = end;
    // A write: what is read may be old by the time it is answered, and who shuts us out removes the lease.
    const renewed = await this.#item.update("renew a redrive", {
      UpdateExpression: `SET ${u}=:u`,
      ConditionExpression: `${r}=:r AND ${u}<:u`,
      ExpressionAttributeValues: { ":r": { S: this.#name }, ":u": { N: String(end) } },
    });
    if (renewed) return true;
    // It was carried out and its answer was lost, or one that began later came first.
    const stored = readLease(await this.#item.read(), this.#partition);
    return stored.name === this.#name && stored.end >= end;
  }

  /**
   * Replaces the list of parked keys, if it still is what was read: nothing was parked since. While an invocation
   * holds the partition it may be about to park a change behind the key: then refused, unless by force, which takes
   * the partition and gives it back at once: the invocation cannot move the mark any more, and its batch comes again.
   * `untouched`: refused too where an invocation has come and gone since.
   */
  async replaceParked(
    { stored: listed = "", token, hold }: FencedPartition,
    left: string | undefined,
    when: "free" | "untouched" | "by force",
  ): Promise<boolean> {
    const isHeld = hold !== undefined;
    const force = when === "by force";
    const was = storedKeys(listed, isHeld) ?? "";
    const [r, k, t] = [`r${this.#partition}`, `k${this.#partition}`, `t${this.#partition}`];
    const { lists, place, signal } = this.#item;
    const now = storedKeys(left === undefined ? undefined : await lists.write(place, left, signal), isHeld);
    const set = [...(now === undefined ? [] : [`${k}=:now`]), ...(force ? [`${t}=:t`] : [])];
    const given = when === "untouched" && token !== undefined ? token : GIVEN_BACK;
    const free = force ? `${t}<:t` : given === GIVEN_BACK ? `contains(${t},:t)` : `${t}=:t`;
    const replaced = await this.#item.update("unpark", {
      UpdateExpression: [
        ...(set.length > 0 ? [`SET ${set.join(",")}`] : []),
        ...(now === undefined ? [`REMOVE ${k}`] : []),
      ].join(" "),
      ConditionExpression: `${r}=:r AND ${k}=:was AND (attribute_not_exists(${t}) OR ${free})`,
      ExpressionAttributeValues: {
        ":r": { S: this.#name },
        ":was": { S: was },
        ":t": { S: force ? new FenceToken(counterAhead([token]), this.#name).givenBack : given },
        ...(now === undefined ? {} : { ":now": { S: now } }),
      },
    });
    // Where it was refused, nothing names the new list, unless the answer to a first try was lost: then it stays.
    if (replaced) await lists.remove(place, listed, signal).catch(() => {});
    return replaced;
  }

  /** Renews the lease no more. */
  abandon(): void {
    clearInterval(this.#renewal);
  }

  /** Gives the lease back. */
  async release(signal?: AbortSignal): Promise<void> {
    clearInterval(this.#renewal);
    const r = `r${this.#partition}`;
    const update = {
      UpdateExpression: `REMOVE ${r}`,
      ConditionExpression: `${r}=:r`,
      ExpressionAttributeValues: { ":r": { S: this.#name } },
    };
    await this.#item.update("end a redrive", update, signal);
  }
}

function leaseEnd(): number {
  return Date.now() + LEASE_MS;
}

function readLease(item: Record<string, AttributeValue> | undefined, partition: number) {
  return { name: item?.[`r${partition}`]?.S, end: Number(item?.[`u${partition}`]?.N ?? "0") };
}

async function readFenced(item: FenceItem): Promise<FencedPartition> {
  const { lists, place, signal } = item;
  let seen: string | undefined;
  for (;;) {
    const fence = await item.read();
    const { mark = "", parked: stored, token, hold, attempts, fault } = readPartition(fence, place.partition);
    try {
      const parked = await lists.read(place, stored, signal);
      const held = token !== undefined;
      const running = attempts?.running;
      return { mark, parked, stored, hold, token: readToken(fence, place.partition), held, running, fault };
    } catch (error) {
      // An invocation may have replaced it since; what is named still, and is not there, is missing.
      if (!(error instanceof ParkedKeysMissingError) || stored === seen) throw error;
      seen = stored;
    }
  }
}

/** The item of the fence in which a partition stands. */
class FenceItem {
  readonly #dynamodb: DynamoDBClient;
  readonly #at: Pick<UpdateItemCommandInput, "TableName" | "Key">;
  readonly place: PartitionName;
  readonly lists: ParkedLists;
  readonly signal: AbortSignal;

  constructor(
    dynamodb: DynamoDBClient,
    table: string,
    key: Record<string, AttributeValue>,
    { place, lists, signal }: { place: PartitionName; lists: ParkedLists; signal: AbortSignal },
  ) {
    this.#dynamodb = dynamodb;
    this.#at = { TableName: table, Key: key };
    this.place = place;
    this.lists = lists;
    this.signal = signal;
  }

  async read(): Promise<Record<string, AttributeValue> | undefined> {
    const { Item } = await callTable("read the fence", this.signal, () =>
      this.#dynamodb.send(
        new GetItemCommand({ TableName: this.#at.TableName, Key: this.#at.Key, ConsistentRead: true }),
        { abortSignal: this.signal },
      ),
    );
    return Item;
  }

  /** Returns false when the condition does not hold. */
  async update(
    what: string,
    update: Omit<UpdateItemCommandInput, "TableName" | "Key">,
    signal = this.signal,
  ): Promise<boolean> {
    return callTable(what, signal, async () => {
      try {
        await this.#dynamodb.send(new UpdateItemCommand({ ...this.#at, ...update }), {
          abortSignal: signal,
        });
        return true;
      } catch (error) {
        if (error instanceof ConditionalCheckFailedException) return false;
        throw error;
      }
    });
  }
}

/**
 * The parked keys of a partition.
 * @throws StateItemError where the fence is not as this version writes it.
 */
export function keysOf(
  consumer: string,
  { topic, partition }: PartitionName,
  { parked, fault }: FencedPartition,
): ParkedKeys {
  const item = fenceKey("", consumer, topic, groupOf(partition)).sk;
  if (fault !== undefined) throw new StateItemError(consumer, item, fault);
  try {
    return ParkedKeys.parse(parked);
  } catch {
    throw new StateItemError(consumer, item, `k${partition}: expected a list of parked keys`);
  }
}
