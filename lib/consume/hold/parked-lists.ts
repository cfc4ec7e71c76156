import { randomBytes } from "node:crypto";
import { parkedListKey, type StateKey } from "../../state/state-key.ts";
import type { PartitionName } from "../consume-errors.ts";
import type { ConsumerTable } from "../fence/consumer-table.ts";
import { ParkedKeysMissingError } from "./hold-errors.ts";

/*
 * The lists of keys with open dead letters (`ParkedKeys`), each an item of its own (rule 36): in the fence item those of 32
 * partitions had 180 KB, and DynamoDB charges a write for the whole item. A list is written once, under a version nobody had
 * before, and void until the fence names it: attribute `k<p>` is `~<version>`, moves with the checkpoint, and older libraries refuse
 * it, since they must not go on as if nothing were parked. Lists in the attribute itself, as those wrote them, are read for ever.
 */

const NAMED = /^~([\w-]+)$/;
/** Lists kept in memory: a version never changes. One has at most 6 KB. */
const KEPT = 1024;

/** The lists of one consumer. */
export class ParkedLists {
  readonly #table: ConsumerTable;
  readonly #known = new Map<string, string>();

  constructor(table: ConsumerTable) {
    this.#table = table;
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
    const table = this.#table.until(signal, "read parked keys");
    const keys = (await table.get(this.#key(place, version)))?.keys?.S;
    if (keys === undefined) throw new ParkedKeysMissingError(place, version);
    this.#keep(version, keys);
    return keys;
  }

  /** Stores a list, and returns what names it. */
  async write({ topic, partition }: PartitionName, keys: string, signal: AbortSignal): Promise<string> {
    const version = randomBytes(12).toString("base64url");
    const item = { keys: { S: keys }, createdAt: { N: String(Date.now()) } };
    const table = this.#table.until(signal, "write parked keys");
    await table.put(this.#key({ topic, partition }, version), item);
    this.#keep(version, keys);
    return `~${version}`;
  }

  /** Removes a list that the fence names no more. */
  async remove(place: PartitionName, stored: string | undefined, signal: AbortSignal): Promise<void> {
    const version = NAMED.exec(stored ?? "")?.[1];
    if (version === undefined) return;
    this.#known.delete(version);
    await this.#table.until(signal, "remove parked keys").delete(this.#key(place, version));
  }

  #keep(version: string, keys: string): void {
    this.#known.set(version, keys);
    const [oldest] = this.#known.keys();
    if (this.#known.size > KEPT && oldest !== undefined) this.#known.delete(oldest);
  }

  #key(place: PartitionName, version: string): StateKey {
    return parkedListKey(this.#table, place, version);
  }
}
