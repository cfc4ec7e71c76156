import { createHash } from "node:crypto";
import type { ChangeEventJson } from "../../change/event.ts";
import { printJson } from "../../change/json-print.ts";
import type { PositionText } from "../../change/position.ts";
import { keyOf } from "../run/event.ts";

/*
 * The keys of one partition that have open dead letters: a list that attribute `k<p>` of the fence item names
 * (parked-lists.ts), so that only the partition's owner changes it, together with its checkpoint. The changes themselves
 * stand in items of their own (parking-table.ts), under the name of their chain.
 */

/**
 * `parked`: later changes of the key wait behind. `skipped`: they do not, and the first that takes effect supersedes
 * the dead letter. `overtaken`: that is under way, redrive must not begin.
 */
export type ParkedKind = "parked" | "skipped" | "overtaken";

/** A key with an open dead letter. */
export interface ParkedKey {
  readonly kind: ParkedKind;
  /** Names its changes: a hash of the key and one of the first change's position, so that a later chain is another. */
  readonly chain: string;
  /** Changes and KiB put into the chain so far; redrive's progress does not lower them. */
  readonly items: number;
  readonly kib: number;
}

/** The bounds of one partition's parked changes. At a bound the partition stops. */
export interface ParkingLimits {
  readonly keys: number;
  readonly items: number;
  readonly kib: number;
}

/** A list of 256 keys has 6 KB. */
export const PARKING_LIMITS: ParkingLimits = { keys: 256, items: 10_000, kib: 64 * 1024 };

const LETTERS: Readonly<Record<ParkedKind, string>> = { parked: "p", skipped: "s", overtaken: "x" };
const KINDS = new Map(Object.entries(LETTERS).map(([kind, letter]) => [letter, kind as ParkedKind]));
const HASH_LENGTH = 8;
const ENTRY = /^([psx])([\w-]{14})([0-9a-z]+)\.([0-9a-z]+)$/;

/** A partition's keys with open dead letters, as an invocation knows them. */
export class ParkedKeys {
  readonly #keys = new Map<string, ParkedKey>();
  /** Put into chains by this invocation: counted once the checkpoint has passed them. */
  #added: { readonly hash: string; readonly position: PositionText; readonly kib: number }[] = [];

  /** Set where the fence may hold something of them. */
  #known = false;

  /** Reads what `format` wrote. */
  static parse(stored: string | undefined): ParkedKeys {
    const parked = new ParkedKeys();
    parked.#known = stored !== undefined;
    for (const text of stored ? stored.split(",") : []) {
      const [, letter = "", chain = "", items = "", kib = ""] = ENTRY.exec(text) ?? [];
      const kind = KINDS.get(letter);
      if (!kind) throw new RangeError("the fence's parked keys are not of the format");
      const key = { kind, chain, items: Number.parseInt(items, 36), kib: Number.parseInt(kib, 36) };
      parked.#keys.set(chain.slice(0, HASH_LENGTH), key);
    }
    return parked;
  }

  static copy(other: ParkedKeys): ParkedKeys {
    const parked = new ParkedKeys();
    parked.#known = other.#known;
    for (const [hash, key] of other.#keys) parked.#keys.set(hash, key);
    parked.#added = [...other.#added];
    return parked;
  }

  get size(): number {
    return this.#keys.size;
  }

  values(): ParkedKey[] {
    return [...this.#keys.values()];
  }

  /** The open chain of a key, if there is one. */
  find(key: string): ParkedKey | undefined {
    return this.#keys.get(hashOf(key));
  }

  /** Returns whether one more change fits, of a key that has a chain or of one that has none. */
  hasRoom(key: string, kib: number, limits: ParkingLimits): boolean {
    const all = this.values();
    const items = all.reduce((sum, entry) => sum + entry.items, this.#added.length);
    const size = all.reduce((sum, entry) => sum + entry.kib, 0);
    const added = this.#added.reduce((sum, entry) => sum + entry.kib, 0);
    return (
      (this.#keys.has(hashOf(key)) || this.#keys.size < limits.keys) &&
      items < limits.items &&
      size + added + kib <= limits.kib
    );
  }

  /** A change was put into the chain of its key (see `chainOf`), which from now on is of this kind. */
  add(key: string, kind: ParkedKind, position: PositionText, kib: number): void {
    const hash = hashOf(key);
    const {
      chain,
      items,
      kib: size,
    } = this.#keys.get(hash) ?? { chain: chainOf(key, position), items: 0, kib: 0 };
    this.#keys.set(hash, { kind, chain, items, kib: size });
    this.#added.push({ hash, position, kib });
    this.#known = true;
  }

  /** The kind of a chain is another one from now on. */
  turn(chain: string, kind: ParkedKind): void {
    const hash = chain.slice(0, HASH_LENGTH);
    const entry = this.#keys.get(hash);
    if (entry?.chain === chain) this.#keys.set(hash, { ...entry, kind });
  }

  /** The chain is open no more. */
  remove(chain: string): void {
    const hash = chain.slice(0, HASH_LENGTH);
    if (this.#keys.get(hash)?.chain !== chain) return;
    this.#keys.delete(hash);
    this.#added = this.#added.filter((added) => added.hash !== hash);
  }

  /**
   * As the fence is to hold it together with this checkpoint, undefined where it never held any (see `PartitionProgress`). What
   * was added behind the checkpoint comes again, and is not counted.
   */
  format(checkpoint: PositionText): string | undefined {
    const entries = [...this.#keys].flatMap(([hash, { kind, chain, items, kib }]) => {
      const added = this.#added.filter((entry) => entry.hash === hash && entry.position <= checkpoint);
      const count = items + added.length;
      const size = added.reduce((sum, entry) => sum + entry.kib, kib);
      return count > 0 ? [`${LETTERS[kind]}${chain}${count.toString(36)}.${size.toString(36)}`] : [];
    });
    return entries.length > 0 || this.#known ? entries.join(",") : undefined;
  }
}

/** The chain that a change of a key begins. The same change always begins the same one. */
export function chainOf(key: string, position: PositionText): string {
  return hashOf(key) + digest(position).slice(0, 6);
}

/**
 * Returns what orders a change: the texts of its key's values, as the partition is chosen by. Undefined without a key: truncate,
 * logical message, table without one.
 */
export function parkingKey(wire: ChangeEventJson): string | undefined {
  if (wire.op === "t" || wire.op === "m") return undefined;
  const columns = wire.source.key ?? [];
  // A large value that did not travel with the row stands in the old one (replica identity).
  const row = { ...keyOf({ ...wire, after: null }), ...keyOf(wire) };
  return columns.length === 0 ? undefined : keyText(columns, row);
}

/** The key of a row by these columns; undefined where it has not all of them. */
export function keyText(
  columns: readonly string[],
  row: Readonly<Record<string, unknown>>,
): string | undefined {
  if (columns.some((column) => !Object.hasOwn(row, column))) return undefined;
  return columns.map((column) => textOf(row[column])).join("\0");
}

/** A key as people write it: `17`, or `5,17` for two columns. */
export function keyLabel(key: string): string {
  return key.replaceAll("\0", ",");
}

/** Returns what is wrong with a partition's list of keys, naming its attribute; undefined: nothing. */
export function faultOfKeys(parked: string | undefined, partition: number): string | undefined {
  try {
    ParkedKeys.parse(parked);
    return undefined;
  } catch {
    return `k${partition}: expected a list of parked keys`;
  }
}

/**
 * Values that are equal to PostgreSQL but printed differently (numeric 1.50, char(n) with blanks) must be one key. Their
 * types are not known here, so some texts that differ are one key too: they wait for each other, nothing more.
 */
function textOf(value: unknown): string {
  if (typeof value === "string") {
    const text = withoutEnd(value, " ");
    return /^-?\d+\.\d+$/.test(text) ? withoutEnd(withoutEnd(text, "0"), ".") : text;
  }
  return typeof value === "object" && value !== null ? printJson(value) : String(value);
}

/** By hand: a pattern takes quadratic time for many such characters that are not at the end. */
function withoutEnd(text: string, character: string): string {
  let end = text.length;
  while (end > 0 && text[end - 1] === character) end--;
  return text.slice(0, end);
}

function hashOf(key: string): string {
  return digest(key).slice(0, HASH_LENGTH);
}

function digest(text: string): string {
  return createHash("sha256").update(text).digest("base64url");
}
