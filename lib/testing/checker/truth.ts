import { isUtf8 } from "node:buffer";
import { quoteIdentifier, quoteTable } from "../../change/sql-identifier.ts";
import { formatTable, type TableName } from "../../change/table-pattern.ts";
import { MOVE } from "../../source/postgres/slots/move.ts";
import { withClient } from "./local-parts.ts";

/** One row change as PostgreSQL itself tells it, in commit order. */
export interface TruthChange {
  /** As people write it: `public.orders`. */
  readonly table: string;
  readonly op: "c" | "u" | "d" | "t";
  /** Of the commit record, and of its end: what a confirmed slot has passed. */
  readonly commitLsn: bigint;
  readonly endLsn: bigint;
  /** The first ordinal that it takes (rule 1), counted over all tables; an update takes the next one too. */
  readonly ordinal: number;
  /** Values of the key columns as PostgreSQL prints them, of the old row for deletes; none for truncates. */
  readonly key: readonly string[];
  /** Old values of the key, if it changed. */
  readonly oldKey?: readonly string[];
  /** It holds text that is none: no event can be made of it, and it must be put aside. */
  readonly undecodable?: true;
}

/** Tables that left a slot, with this commit. */
export interface TruthMove {
  readonly commitLsn: bigint;
  readonly from: string;
  readonly tables: readonly string[];
}

/** A table whose truth is kept, and the columns that make its key. */
export interface TruthTable extends TableName {
  readonly key: readonly string[];
}

/**
 * The truth about what was committed: a logical slot of the checker's own, read by SQL and decoded apart from the
 * pipeline's decoder, so that one does not forgive the other.
 */
export class Truth {
  readonly #databaseUrl: string;
  readonly #name: string;
  readonly #keys: ReadonlyMap<string, readonly string[]>;
  readonly #changes: TruthChange[] = [];
  readonly #moves: TruthMove[] = [];

  private constructor(databaseUrl: string, name: string, tables: readonly TruthTable[]) {
    this.#databaseUrl = databaseUrl;
    this.#name = name;
    this.#keys = new Map(tables.map((table) => [formatTable(table), table.key]));
  }

  /** Makes a publication and a slot of this name; everything committed from now on is the truth. */
  static async begin(options: {
    readonly databaseUrl: string;
    readonly name: string;
    readonly tables: readonly TruthTable[];
  }): Promise<Truth> {
    const { databaseUrl, name, tables } = options;
    const list = tables.map(({ schema, table }) => `${quoteTable({ schema, table })}`).join(", ");
    await withClient(databaseUrl, async (client) => {
      await client.query(`CREATE PUBLICATION ${quoteIdentifier(name)} FOR TABLE ${list}`);
      await client.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", [name]);
    });
    return new Truth(databaseUrl, name, tables);
  }

  /** Moves of tables between the pipeline's slots since `begin`, as far as read, in commit order. */
  get moves(): readonly TruthMove[] {
    return this.#moves;
  }

  /** Everything committed since `begin`, in commit order. May be called again and again. */
  async read(): Promise<readonly TruthChange[]> {
    await withClient(this.#databaseUrl, async (client) => {
      const { rows } = await client.query<{ data: Buffer }>(
        `SELECT data FROM pg_logical_slot_get_binary_changes($1, NULL, NULL,
           'proto_version', '1', 'publication_names', $2, 'messages', 'true')`,
        [this.#name, quoteIdentifier(this.#name)],
      );
      const decoder = new TruthDecoder(this.#keys);
      for (const { data } of rows) decoder.take(data);
      // After a crash of the server a slot gives again what it has given.
      const last = this.#changes.at(-1)?.commitLsn ?? 0n;
      for (const change of decoder.changes) if (change.commitLsn > last) this.#changes.push(change);
      const lastMove = this.#moves.at(-1)?.commitLsn ?? 0n;
      for (const move of decoder.moves) if (move.commitLsn > lastMove) this.#moves.push(move);
    });
    return this.#changes;
  }

  /** Removes the slot and the publication. */
  async end(): Promise<void> {
    await withClient(this.#databaseUrl, async (client) => {
      await client.query("SELECT pg_drop_replication_slot($1)", [this.#name]);
      await client.query(`DROP PUBLICATION ${quoteIdentifier(this.#name)}`);
    });
  }
}

interface TruthRelation {
  readonly table: string;
  readonly columns: readonly string[];
  readonly key: readonly string[];
}

type TruthTuple = readonly (string | undefined)[];

/** https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html */
class TruthDecoder {
  readonly changes: TruthChange[] = [];
  readonly moves: TruthMove[] = [];
  readonly #keys: ReadonlyMap<string, readonly string[]>;
  readonly #relations = new Map<number, TruthRelation>();
  #commitLsn = 0n;
  #ordinal = 0;
  #open: Omit<TruthChange, "endLsn">[] = [];
  #bytes: Buffer = Buffer.alloc(0);
  #at = 0;
  /** The message has a value that is no text. */
  #undecodable = false;

  constructor(keys: ReadonlyMap<string, readonly string[]>) {
    this.#keys = keys;
  }

  take(bytes: Buffer): void {
    this.#bytes = bytes;
    this.#at = 0;
    this.#undecodable = false;
    const type = this.#char();
    if (type === "B") {
      this.#commitLsn = this.#int64();
      this.#ordinal = 1;
      this.#open = [];
    } else if (type === "C") {
      this.#at += 9;
      const endLsn = this.#int64();
      for (const change of this.#open) this.changes.push({ ...change, endLsn });
    } else if (type === "R") this.#relation();
    else if (type === "I") this.#insert();
    else if (type === "U") this.#update();
    else if (type === "D") this.#delete();
    else if (type === "T") this.#truncate();
    else if (type === "M") this.#message();
  }

  #relation(): void {
    const id = this.#int32();
    const table = formatTable({ schema: this.#text(), table: this.#text() });
    this.#at += 1;
    const columns = Array.from({ length: this.#int16() }, () => {
      this.#at += 1;
      const name = this.#text();
      this.#at += 8;
      return name;
    });
    const key = this.#keys.get(table);
    if (!key) throw new Error(`the truth of ${table} was not asked for`);
    this.#relations.set(id, { table, columns, key });
  }

  #insert(): void {
    const relation = this.#relationOf();
    this.#at += 1;
    this.#push(relation.table, "c", this.#keyOf(relation, this.#tuple()));
  }

  #update(): void {
    const relation = this.#relationOf();
    const before = this.#char() === "N" ? undefined : this.#tuple();
    if (before) this.#at += 1;
    const key = this.#keyOf(relation, this.#tuple());
    const oldKey = before && this.#keyOf(relation, before);
    const changed = oldKey?.some((value, i) => value !== key[i]);
    this.#push(relation.table, "u", key, changed ? oldKey : undefined);
  }

  #delete(): void {
    const relation = this.#relationOf();
    this.#at += 1;
    this.#push(relation.table, "d", this.#keyOf(relation, this.#tuple()));
  }

  #truncate(): void {
    const count = this.#int32();
    this.#at += 1;
    for (let i = 0; i < count; i++) this.#push(this.#relationOf().table, "t", []);
  }

  #message(): void {
    const transactional = this.#bytes.readUInt8(this.#at) === 1;
    this.#at += 9;
    if (this.#text() !== MOVE || !transactional) return;
    const content = this.#bytes.toString("utf8", this.#at + 4);
    const { from, tables } = JSON.parse(content) as { from: string; tables: string[] };
    this.moves.push({ commitLsn: this.#commitLsn, from, tables });
  }

  #push(table: string, op: TruthChange["op"], key: readonly string[], oldKey?: readonly string[]): void {
    this.#open.push({
      table,
      op,
      commitLsn: this.#commitLsn,
      ordinal: this.#ordinal,
      key,
      ...(oldKey ? { oldKey } : {}),
      ...(this.#undecodable ? { undecodable: true } : {}),
    });
    this.#ordinal += op === "u" ? 2 : 1;
  }

  #relationOf(): TruthRelation {
    const relation = this.#relations.get(this.#int32());
    if (!relation) throw new Error("a change of a relation that was not announced");
    return relation;
  }

  #keyOf(relation: TruthRelation, tuple: TruthTuple): readonly string[] {
    return relation.key.map((column) => {
      const value = tuple[relation.columns.indexOf(column)];
      if (value === undefined)
        throw new Error(`${relation.table}.${column} has no value: it cannot be a key`);
      return value;
    });
  }

  #tuple(): TruthTuple {
    return Array.from({ length: this.#int16() }, () => {
      const kind = this.#char();
      if (kind !== "t") return undefined;
      const length = this.#int32();
      this.#at += length;
      if (!isUtf8(this.#bytes.subarray(this.#at - length, this.#at))) this.#undecodable = true;
      return this.#bytes.toString("utf8", this.#at - length, this.#at);
    });
  }

  #char(): string {
    return String.fromCharCode(this.#bytes.readUInt8(this.#at++));
  }

  #int16(): number {
    this.#at += 2;
    return this.#bytes.readInt16BE(this.#at - 2);
  }

  #int32(): number {
    this.#at += 4;
    return this.#bytes.readInt32BE(this.#at - 4);
  }

  #int64(): bigint {
    this.#at += 8;
    return this.#bytes.readBigUInt64BE(this.#at - 8);
  }

  #text(): string {
    const end = this.#bytes.indexOf(0, this.#at);
    const text = this.#bytes.toString("utf8", this.#at, end);
    this.#at = end + 1;
    return text;
  }
}
