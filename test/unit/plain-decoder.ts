import { createHash } from "node:crypto";
import { formatLsn } from "../../lib/change/lsn.ts";
import { formatPosition, type PositionText } from "../../lib/change/position.ts";
import { partitionOf } from "../../lib/change/topic.ts";
import { BUILTIN_TYPES, type BuiltinForm } from "../../lib/source/postgres/decode/values/builtin-types.ts";

/** What the plain decoder makes of a change. */
export interface PlainChange {
  readonly position: PositionText;
  readonly partition: number;
  readonly json: string;
}

/** A value as the message holds it: a text, null, or `undefined` where it did not travel. */
type Value = string | null | undefined;

interface Column {
  readonly key: boolean;
  readonly name: string;
  readonly type: number;
  readonly modifier: number;
}

interface Table {
  readonly schema: string;
  readonly name: string;
  readonly full: boolean;
  readonly columns: readonly Column[];
}

/**
 * pgoutput's rows decoded the plain way, with a string for everything, written from docs/03-values.md and docs/07-formats.md:
 * what the product's decoder gives byte by byte must be the same. Built-in types without arrays, UTF-8, one topic of
 * `partitions` a table, epoch 1, the clock at 0; with identity full, `primaryKey` names the key.
 */
export class PlainDecoder {
  readonly changes: PlainChange[] = [];
  readonly #partitions: number;
  readonly #primaryKey: readonly string[];
  readonly #tables = new Map<number, Table>();
  #bytes: Buffer = Buffer.alloc(0);
  #at = 0;
  #lsn = 0n;
  #commit = { lsn: 0n, xid: 0, timeMs: 0 };
  #ordinal = 0;

  constructor(partitions: number, primaryKey: readonly string[]) {
    this.#partitions = partitions;
    this.#primaryKey = primaryKey;
  }

  decode(payload: Buffer, lsn: bigint): void {
    this.#bytes = payload;
    this.#at = 1;
    this.#lsn = lsn;
    const type = String.fromCharCode(payload[0] as number);
    if (type === "B") {
      const commitLsn = this.#bigint();
      const timeMs = Number(this.#bigint() / 1000n) + Date.UTC(2000, 0, 1);
      this.#commit = { lsn: commitLsn, xid: this.#int(4), timeMs };
      this.#ordinal = 0;
    } else if (type === "R") this.#relation();
    else if (type === "I") {
      const table = this.#table();
      this.#int(1);
      const row = this.#row();
      this.#give(table, ++this.#ordinal, `{"op":"c","before":null,"after":${after(table, row)}`, row);
    } else if (type === "U") this.#update(this.#table());
    else if (type === "D") {
      const table = this.#table();
      const whole = this.#int(1) === 0x4f;
      const old = this.#row();
      const nulls = jsonNulls("jsonNull", table, this.#old(table, old, whole));
      const json = `{"op":"d","before":${this.#before(table, old, whole)},"after":null${nulls}`;
      this.#give(table, ++this.#ordinal, json, old);
    } else if (!"CA".includes(type)) throw new Error(`no message of the scripts: ${type}`);
  }

  #update(table: Table): void {
    const kind = String.fromCharCode(this.#int(1));
    const old = kind === "N" ? undefined : this.#row();
    if (old) this.#int(1);
    const row = this.#row();
    const first = ++this.#ordinal;
    const second = ++this.#ordinal;
    const whole = kind === "O";
    const filled = row.map((value, i) => (value === undefined && whole && old?.[i] != null ? old[i] : value));
    const keyed = row.map((value, i) => (value === undefined ? old?.[i] : value));
    const before = old ? this.#before(table, old, whole) : "null";
    const watched = this.#watched(table);
    const changed =
      old &&
      watched.some((i) => row[i] !== undefined && canonical(table, i, old) !== canonical(table, i, row));
    if (!changed) {
      const nulls = old ? jsonNulls("jsonNullBefore", table, this.#old(table, old, whole)) : "";
      this.#give(table, first, `{"op":"u","before":${before},"after":${after(table, filled)}${nulls}`, keyed);
      return;
    }
    const members = (values: readonly Value[]) => watched.map((i) => member(table, i, values)).join();
    const keyChange = `,"keyChange":{"from":{${members(old)}},"to":{${members(keyed)}}}`;
    const nulls = jsonNulls("jsonNull", table, this.#old(table, old, whole));
    this.#give(table, first, `{"op":"d","before":${before},"after":null${nulls}`, old, keyChange);
    this.#give(table, second, `{"op":"c","before":null,"after":${after(table, filled)}`, keyed, keyChange);
  }

  #give(table: Table, ordinal: number, body: string, keyRow: readonly Value[], keyChange = ""): void {
    const { lsn: commitLsn, xid, timeMs } = this.#commit;
    const watched = this.#watched(table);
    const content = [
      table.schema,
      table.name,
      table.columns.map(({ name, type, modifier }) => [name, type, modifier]),
      watched.map((i) => table.columns[i]?.name),
    ];
    const schemaVersion = createHash("sha256").update(JSON.stringify(content)).digest("hex").slice(0, 8);
    const source = {
      connector: "postgresql",
      name: "shop",
      db: "shop",
      schema: table.schema,
      table: table.name,
      txId: String(xid),
      lsn: formatLsn(this.#lsn),
      commitLsn: formatLsn(commitLsn),
      epoch: 1,
      ts_ms: timeMs,
      ordinal,
      snapshot: "false",
      schemaVersion,
      key: watched.map((i) => table.columns[i]?.name),
    };
    const key = watched.map((i) => canonical(table, i, keyRow)).join("\0");
    this.changes.push({
      position: formatPosition({ epoch: 1, commitLsn, ordinal }),
      partition: partitionOf(key, this.#partitions),
      json: `${body},"ts_ms":0,"source":${JSON.stringify(source).slice(0, -1)}${keyChange}`,
    });
  }

  /** Indexes of the key. */
  #watched({ full, columns }: Table): number[] {
    const isKey = ({ key, name }: Column) => (full ? this.#primaryKey.includes(name) : key);
    return columns.flatMap((column, i) => (isKey(column) ? [i] : []));
  }

  /** The values of an old row that travel. */
  #old(table: Table, old: readonly Value[], whole: boolean): readonly Value[] {
    return old.map((value, i) => (whole || table.columns[i]?.key ? value : undefined));
  }

  #before(table: Table, old: readonly Value[], whole: boolean): string {
    const told = this.#old(table, old, whole);
    return `{${table.columns.flatMap((_, i) => (told[i] === undefined ? [] : [member(table, i, told)])).join()}}`;
  }

  #relation(): void {
    const oid = this.#int(4);
    const [schema, name] = [this.#string(), this.#string()];
    const full = this.#int(1) === 0x66;
    const columns: Column[] = [];
    for (let left = this.#int(2); left > 0; left--) {
      const key = this.#int(1) === 1;
      columns.push({ key, name: this.#string(), type: this.#int(4), modifier: this.#int(4) | 0 });
    }
    this.#tables.set(oid, { schema, name, full, columns });
  }

  #table(): Table {
    return this.#tables.get(this.#int(4)) as Table;
  }

  #row(): Value[] {
    return Array.from({ length: this.#int(2) }, () => {
      const kind = String.fromCharCode(this.#int(1));
      if (kind === "n") return null;
      if (kind === "u") return undefined;
      const length = this.#int(4);
      this.#at += length;
      return this.#bytes.toString("utf8", this.#at - length, this.#at);
    });
  }

  #int(bytes: number): number {
    this.#at += bytes;
    return this.#bytes.readUIntBE(this.#at - bytes, bytes);
  }

  #bigint(): bigint {
    this.#at += 8;
    return this.#bytes.readBigInt64BE(this.#at - 8);
  }

  #string(): string {
    const end = this.#bytes.indexOf(0, this.#at);
    const text = this.#bytes.toString("utf8", this.#at, end);
    this.#at = end + 1;
    return text;
  }
}

function after(table: Table, row: readonly Value[]): string {
  const told = table.columns.flatMap((_, i) => (row[i] === undefined ? [] : [member(table, i, row)]));
  const unchanged = table.columns.flatMap(({ name }, i) =>
    row[i] === undefined ? [JSON.stringify(name)] : [],
  );
  return `{${told.join()}}${unchanged.length > 0 ? `,"unchanged":[${unchanged.join()}]` : ""}${jsonNulls("jsonNull", table, row)}`;
}

/** Columns that hold the value null of json, not NULL. */
function jsonNulls(member: string, { columns }: Table, row: readonly Value[]): string {
  const names = columns.flatMap(({ name, type }, i) =>
    formOf(type) === "json" && row[i]?.trim() === "null" ? [JSON.stringify(name)] : [],
  );
  return names.length > 0 ? `,"${member}":[${names.join()}]` : "";
}

function member({ columns }: Table, i: number, values: readonly Value[]): string {
  const { name, type } = columns[i] as Column;
  const value = values[i] as string | null;
  return `${JSON.stringify(name)}:${value === null ? "null" : json(formOf(type), value)}`;
}

function formOf(type: number): BuiltinForm {
  return BUILTIN_TYPES.find(([oid]) => oid === type)?.[3] ?? "text";
}

function json(form: BuiltinForm, text: string): string {
  switch (form) {
    case "boolean":
      return text === "t" ? "true" : "false";
    case "number":
    case "float":
      return Number.isFinite(Number(text)) ? text : JSON.stringify(text);
    case "json":
      return text.replaceAll(/[\r\n]/g, " ");
    case "timestamp":
      return JSON.stringify(text.replace(" ", "T").replace("TBC", " BC"));
    case "timestamptz":
      return JSON.stringify(text.replace(" ", "T").replace("+00", "Z"));
    case "bytea":
      return JSON.stringify(Buffer.from(text.slice(2), "hex").toString("base64"));
    case "vector":
      return JSON.stringify(text.split(" ").filter(Boolean).map(Number));
    default:
      return JSON.stringify(text);
  }
}

function canonical({ columns }: Table, i: number, values: readonly Value[]): string {
  const form = formOf((columns[i] as Column).type);
  const text = String(values[i]);
  if (form === "numeric" && text.includes(".")) return text.replace(/\.?0+$/, "");
  if (form === "bpchar") return text.replace(/ +$/, "");
  if (form === "float") return text === "-0" ? "0" : text;
  return text;
}
