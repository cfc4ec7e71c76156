import { randomBytes } from "node:crypto";
import type { DynamoDBClient } from "@aws-sdk/client-dynamodb";
import { parkedListKey } from "../../state/state-key.ts";
import type { PartitionName } from "../consume-errors.ts";
import { deleteItem, type ItemPlace, itemAt, putItem, queryItems, readItem } from "../fence/table-call.ts";
import { ParkedKeysMissingError } from "./hold-errors.ts";

/*
 * The lists of keys with open dead letters (`ParkedKeys`), each an item of its own (rule 36): in the fence item those of 32
 * partitions had 180 KB, and DynamoDB charges a write for the whole item. A list is written once, under a version nobody had
 * before, and void until the fence names it: attribute `k<p>` is `~<version>`, moves with the mark, and older libraries refuse
 * it, since they must not go on as if nothing were parked. Lists in the attribute itself, as those wrote them, are read for ever.
 */

const NAMED = /^~([\w-]+)$/;
/** Lists kept in memory: a version never changes. One has at most 6 KB. */
const KEPT = 1024;
/** A list that no fence names and that is older was left by a process that died, in milliseconds. */
const ORPHANED_MS = 24 * 3_600_000;

/** The lists of one consumer. */
export class ParkedLists {
  readonly #dynamodb: DynamoDBClient;
  readonly #table: string;
  readonly #pipeline: string;
  readonly #consumer: string;
  readonly #known = new Map<string, string>();

  constructor(dynamodb: DynamoDBClient, table: string, pipeline: string, consumer: string) {
    this.#dynamodb = dynamodb;
    this.#table = table;
    this.#pipeline = pipeline;
    this.#consumer = consumer;
  }

  /** Returns the list that a fence holds or names. @throws ParkedKeysMissingError, FenceUnavailableError */
  async read(
    place: PartitionName,
    stored: string | undefined,
    signal: AbortSignal,
  ): Promise<string | undefined> {
    const version = NAMED.exec(stored ?? "")?.[1];
    if (version === undefined) return stored;
    const known = this.#known.get(version);
    if (known !== undefined) return known;
    const at = this.#at(place, version);
    const keys = (await readItem(this.#dynamodb, "read parked keys", at, signal))?.keys?.S;
    if (keys === undefined) throw new ParkedKeysMissingError(place, version);
    this.#keep(version, keys);
    return keys;
  }

  /** Stores a list, and returns what names it. */
  async write({ topic, partition }: PartitionName, keys: string, signal: AbortSignal): Promise<string> {
    const version = randomBytes(12).toString("base64url");
    const item = { keys: { S: keys }, createdAt: { N: String(Date.now()) } };
    const { TableName, Key } = this.#at({ topic, partition }, version);
    const input = { TableName, Item: { ...Key, ...item } };
    await putItem(this.#dynamodb, "write parked keys", input, signal);
    this.#keep(version, keys);
    return `~${version}`;
  }

  /** Removes a list that the fence names no more. */
  async remove(place: PartitionName, stored: string | undefined, signal: AbortSignal): Promise<void> {
    const version = NAMED.exec(stored ?? "")?.[1];
    if (version === undefined) return;
    this.#known.delete(version);
    await this.#delete(place, version, signal);
  }

  /** Removes the lists of a partition that processes left which died. `named` reads what its fence holds. */
  async removeOrphans(
    place: PartitionName,
    named: () => Promise<string | undefined>,
    signal: AbortSignal,
  ): Promise<void> {
    const { pk, sk: prefix } = parkedListKey(this.#pipeline, this.#consumer, place, "");
    const old: string[] = [];
    const query = {
      TableName: this.#table,
      KeyConditionExpression: "pk = :pk AND begins_with(sk, :from)",
      ExpressionAttributeValues: { ":pk": { S: pk }, ":from": { S: prefix } },
      ProjectionExpression: "sk, createdAt",
    };
    for await (const { sk, createdAt } of queryItems(this.#dynamodb, "read parked keys", query, signal))
      if (Number(createdAt?.N) < Date.now() - ORPHANED_MS) old.push(sk?.S?.slice(prefix.length) ?? "");
    if (old.length === 0) return;
    // Read after them: what it does not name now, nobody can name any more.
    const current = await named();
    for (const version of old)
      if (!current?.split(",").includes(`~${version}`)) await this.#delete(place, version, signal);
  }

  #delete(place: PartitionName, version: string, signal: AbortSignal): Promise<void> {
    return deleteItem(this.#dynamodb, "remove parked keys", this.#at(place, version), signal);
  }

  #keep(version: string, keys: string): void {
    this.#known.set(version, keys);
    const [oldest] = this.#known.keys();
    if (this.#known.size > KEPT && oldest !== undefined) this.#known.delete(oldest);
  }

  #at(place: PartitionName, version: string): ItemPlace {
    return itemAt(this.#table, parkedListKey(this.#pipeline, this.#consumer, place, version));
  }
}
