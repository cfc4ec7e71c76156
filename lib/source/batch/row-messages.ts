/*
 * Rows that were read from tables, written as messages of pgoutput: the decoder of the log turns them into events, so
 * that every source gives the same events of the same values.
 * https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
 */

/** A table as its rows were read. */
export interface ReadShape {
  readonly oid: number;
  readonly schema: string;
  readonly table: string;
  /** `full`: old rows are whole. `default`: they hold the key alone. */
  readonly identity: "full" | "default";
  /** Columns of the primary key as it stood then, in key order. */
  readonly primaryKey: readonly string[];
  /** True if old rows hold all values where the identity is full; a source may know of no more than the key. */
  readonly wholeOldRows: boolean;
  readonly columns: readonly ShapeColumn[];
}

/** A column of a shape. */
export interface ShapeColumn {
  readonly name: string;
  /** OID of its type. */
  readonly type: number;
  readonly modifier: number;
  /** Part of the row's key; with identity full every column says so. */
  readonly key: boolean;
}

/** The text of each column as its type's output function gives it with pinned settings; null is null. */
export type RowValues = readonly (string | null)[];

/** One change of one row, with its place. */
export interface RowChange {
  /** Of its position: grows from change to change. */
  readonly commitLsn: bigint;
  /** The change's place in the source: `source.lsn`. */
  readonly lsn: bigint;
  /** Transaction id, 32 bits. */
  readonly xid: number;
  /** Microseconds since 1970 UTC. */
  readonly timeUs: bigint;
  readonly table: ReadShape;
  readonly change:
    | { readonly op: "insert"; readonly row: RowValues }
    | { readonly op: "update"; readonly old: RowValues | undefined; readonly row: RowValues }
    | { readonly op: "delete"; readonly old: RowValues }
    | { readonly op: "truncate" };
}

const POSTGRES_EPOCH_US = 946_684_800_000_000n;

/** Writes changes as messages; tells each table's shape when it is new. */
export class RowMessages {
  readonly #told = new Map<number, ReadShape>();

  /** The shape that a table was last told with. */
  told(oid: number): ReadShape | undefined {
    return this.#told.get(oid);
  }

  /** Tells every shape anew: the decoder has forgotten them. */
  forget(): void {
    this.#told.clear();
  }

  /** The messages of one change, a transaction of its own. */
  of(change: RowChange): readonly Buffer[] {
    const time = int64(change.timeUs - POSTGRES_EPOCH_US);
    const commit = int64(change.commitLsn);
    const begin = Buffer.concat([byte("B"), commit, time, int32(change.xid)]);
    const end = Buffer.concat([byte("C"), Buffer.of(0), commit, commit, time]);
    const row = rowMessage(change);
    if (this.#told.get(change.table.oid) === change.table) return [begin, row, end];
    this.#told.set(change.table.oid, change.table);
    return [begin, relation(change.table), row, end];
  }
}

function rowMessage({ table, change }: RowChange): Buffer {
  const oid = int32(table.oid);
  const old = byte(table.identity === "full" ? "O" : "K");
  switch (change.op) {
    case "insert":
      return Buffer.concat([byte("I"), oid, byte("N"), tuple(change.row)]);
    case "update": {
      const before = change.old ? [old, tuple(change.old)] : [];
      return Buffer.concat([byte("U"), oid, ...before, byte("N"), tuple(change.row)]);
    }
    case "delete":
      return Buffer.concat([byte("D"), oid, old, tuple(change.old)]);
    case "truncate":
      return Buffer.concat([byte("T"), int32(1), Buffer.of(0), oid]);
  }
}

function relation({ oid, schema, table, identity, columns }: ReadShape): Buffer {
  return Buffer.concat([
    byte("R"),
    int32(oid),
    string(schema),
    string(table),
    byte(identity === "full" ? "f" : "d"),
    int16(columns.length),
    ...columns.flatMap(({ name, type, modifier, key }) => [
      Buffer.of(key ? 1 : 0),
      string(name),
      int32(type),
      int32(modifier),
    ]),
  ]);
}

function tuple(values: RowValues): Buffer {
  return Buffer.concat([
    int16(values.length),
    ...values.flatMap((value) => {
      if (value === null) return [byte("n")];
      const text = Buffer.from(value);
      return [byte("t"), int32(text.length), text];
    }),
  ]);
}

function byte(letter: string): Buffer {
  return Buffer.from(letter, "latin1");
}

function string(text: string): Buffer {
  return Buffer.from(`${text}\0`);
}

function int16(value: number): Buffer {
  const buffer = Buffer.alloc(2);
  buffer.writeUInt16BE(value);
  return buffer;
}

/** Signed and unsigned alike: the bits count. */
function int32(value: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32BE(value >>> 0);
  return buffer;
}

function int64(value: bigint): Buffer {
  const buffer = Buffer.alloc(8);
  buffer.writeBigInt64BE(BigInt.asIntN(64, value));
  return buffer;
}
