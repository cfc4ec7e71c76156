import type { KeyPart, KeyRecord, RowKey } from "../known-keys.ts";
import { KnownKeysFullError } from "./polling-errors.ts";

/** Keys over all tables that are compared, at most: they are held in memory, about 150 bytes each. */
export const MOST_KEYS = 500_000;
const PART_KEYS = 250;
/** Of JSON text; an item of the state table holds 400 KB. */
const PART_BYTES = 32_768;
const WRITES_AT_ONCE = 8;

interface Part {
  readonly table: string;
  readonly keys: Set<string>;
  bytes: number;
}

/**
 * The keys of rows that were given and of which no delete was given since, in memory and in the record. A key is durable
 * before its row goes out: a row that is deleted right after it was given is missed by the next comparison.
 */
export class KnownKeys {
  readonly #record: KeyRecord;
  readonly #most: number;
  #loaded = false;
  /** By table, the part that each key stands in. Keys are JSON texts. */
  readonly #tables = new Map<string, Map<string, number>>();
  readonly #parts = new Map<number, Part>();
  /** Parts with room, by table. */
  readonly #open = new Map<string, Set<number>>();
  #next = 0;

  constructor(record: KeyRecord, most = MOST_KEYS) {
    this.#record = record;
    this.#most = most;
  }

  /** Reads the record, once. `anew`: what stands there is of another epoch, and goes. */
  async load(anew: boolean): Promise<void> {
    if (this.#loaded) return;
    for await (const parts of this.#record.read()) {
      if (anew) await this.#write(parts.map((part) => ({ ...part, keys: [] })));
      else for (const part of parts) this.#take(part);
    }
    this.#loaded = true;
  }

  /** The keys of a table, as texts for `keyOf`. */
  of(table: string): Iterable<string> {
    return this.#tables.get(table)?.keys() ?? [];
  }

  /** Knows these too, and resolves when that is durable. @throws KnownKeysFullError */
  async add(table: string, keys: readonly RowKey[]): Promise<void> {
    const known = this.#known(table);
    await this.#change((touched) => {
      for (const text of keys.map(textOf)) {
        if (known.has(text)) continue;
        const id = this.#room(table);
        known.set(text, id);
        touched.add(id);
        this.#put(id, text);
      }
    });
    const count = [...this.#tables.values()].reduce((sum, { size }) => sum + size, 0);
    if (count > this.#most) throw new KnownKeysFullError(this.#most);
  }

  /** Knows these no more, and resolves when that is durable. */
  async remove(table: string, keys: readonly RowKey[]): Promise<void> {
    const known = this.#known(table);
    await this.#change((touched) => {
      for (const text of keys.map(textOf)) {
        const id = known.get(text);
        const part = id === undefined ? undefined : this.#parts.get(id);
        if (id === undefined || !part) continue;
        known.delete(text);
        part.keys.delete(text);
        part.bytes -= text.length;
        this.#open.get(table)?.add(id);
        touched.add(id);
      }
    });
  }

  /** Knows none of a table any more, and resolves when that is durable. */
  async forget(table: string): Promise<void> {
    await this.remove(table, [...this.of(table)].map(keyOf));
  }

  #known(table: string): Map<string, number> {
    const known = this.#tables.get(table) ?? new Map<string, number>();
    this.#tables.set(table, known);
    return known;
  }

  /** The number of a part with room. */
  #room(table: string): number {
    const open = this.#open.get(table) ?? new Set();
    this.#open.set(table, open);
    for (const id of open) return id;
    const id = this.#next++;
    this.#parts.set(id, { table, keys: new Set(), bytes: 0 });
    open.add(id);
    return id;
  }

  #put(id: number, text: string): void {
    const part = this.#parts.get(id) as Part;
    part.keys.add(text);
    part.bytes += text.length;
    if (part.keys.size >= PART_KEYS || part.bytes >= PART_BYTES) this.#open.get(part.table)?.delete(id);
  }

  #take({ id, table, keys }: KeyPart): void {
    const known = this.#known(table);
    this.#next = Math.max(this.#next, id + 1);
    this.#parts.set(id, { table, keys: new Set(), bytes: 0 });
    const open = this.#open.get(table) ?? new Set();
    this.#open.set(table, open.add(id));
    for (const text of keys.map(textOf)) {
      known.set(text, id);
      this.#put(id, text);
    }
  }

  /** Changes memory, then the record; when that fails, memory is read from it again. */
  async #change(change: (touched: Set<number>) => void): Promise<void> {
    const touched = new Set<number>();
    change(touched);
    try {
      await this.#write(
        [...touched].map((id) => {
          const { table, keys } = this.#parts.get(id) as Part;
          return { id, table, keys: [...keys].map(keyOf) };
        }),
      );
    } catch (error) {
      this.#loaded = false;
      for (const kept of [this.#tables, this.#parts, this.#open]) kept.clear();
      throw error;
    }
  }

  async #write(parts: readonly KeyPart[]): Promise<void> {
    for (let i = 0; i < parts.length; i += WRITES_AT_ONCE)
      await Promise.all(parts.slice(i, i + WRITES_AT_ONCE).map((part) => this.#record.write(part)));
  }
}

/** The key of a text of `KnownKeys.of`. */
export function keyOf(text: string): RowKey {
  return JSON.parse(text) as RowKey;
}

/** The text of a key. */
export function textOf(key: RowKey): string {
  return JSON.stringify(key);
}
