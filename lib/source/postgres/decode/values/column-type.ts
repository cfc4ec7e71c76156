import type { TypeFacts } from "../../catalog/type-catalog.ts";
import { canonicalText } from "../key-text.ts";
import { arrayEncoder } from "./array.ts";
import { BOX, BUILTIN_TYPES, type BuiltinForm } from "./builtin-types.ts";
import {
  encodeDate,
  encodeInterval,
  encodeTime,
  encodeTimestamp,
  encodeTimestampZoned,
  encodeTimeZoned,
} from "./datetime.ts";
import type { ValueEncoder } from "./encoder.ts";
import { hstoreEncoder } from "./hstore.ts";
import { jsonEncoder } from "./json.ts";
import { arrayJsonNulls, type JsonNullFinder, jsonNullAt } from "./json-null.ts";
import { charText, encodeBoolean, encodeBytea, encodeChar, encodeNumber, encodeVector } from "./scalars.ts";
import type { TextForm } from "./text.ts";
import { encodedWriter, type ValueWriter, valueWriter } from "./value-writer.ts";

/** Writes the values of a column. */
export interface ColumnType {
  /** Text form → JSON. */
  readonly encode: ValueEncoder;
  /** The same, written as UTF-8. */
  readonly write: ValueWriter;
  /** Text form → canonical text in a key. */
  readonly keyText: ValueEncoder;
  /** ASCII in a key is its own canonical text. */
  readonly keyIsText: boolean;
  /** Set if its values may hold a JSON null, which JSON cannot tell from NULL. */
  readonly jsonNulls?: JsonNullFinder | undefined;
}

/** The types of one session: built-in ones are known, others come by what the catalog says of them. */
export class ColumnTypes {
  readonly #text: TextForm;
  readonly #types = new Map<number, ColumnType>();
  readonly #plainText: ColumnType;

  constructor(text: TextForm) {
    this.#text = text;
    this.#plainText = this.#form("text");
    for (const [oid, array, , form] of BUILTIN_TYPES) {
      const type = this.#form(form);
      this.#types.set(oid, type);
      if (array !== 0) this.#types.set(array, this.#arrayOf(type, oid === BOX ? ";" : ","));
    }
  }

  has(oid: number): boolean {
    return this.#types.has(oid);
  }

  /** Text for a type that is not known. */
  get(oid: number): ColumnType {
    return this.#types.get(oid) ?? this.#plainText;
  }

  /**
   * Learns types by their facts. A type of `oids` that the catalog has no more (dropped since its values were
   * written) is taken as text.
   */
  learn(oids: readonly number[], facts: ReadonlyMap<number, TypeFacts>): void {
    for (const oid of oids) this.#types.set(oid, this.#build(oid, facts));
  }

  #build(oid: number, facts: ReadonlyMap<number, TypeFacts>): ColumnType {
    const known = this.#types.get(oid);
    if (known) return known;
    const fact = facts.get(oid);
    switch (fact?.kind) {
      case "domain":
        return this.#build(fact.base, facts);
      case "array":
        return this.#arrayOf(this.#build(fact.element, facts), fact.delimiter);
      case "hstore":
        return this.#other(hstoreEncoder(this.#text));
      default:
        return this.#plainText;
    }
  }

  #arrayOf(element: ColumnType, delimiter: string): ColumnType {
    const { encode, jsonNulls } = element;
    return {
      ...this.#other(arrayEncoder(encode, delimiter)),
      jsonNulls: jsonNulls && arrayJsonNulls(jsonNulls, delimiter),
    };
  }

  #other(encode: ValueEncoder): ColumnType {
    return { encode, write: encodedWriter(encode), keyText: this.#text.decode, keyIsText: true };
  }

  #form(form: BuiltinForm): ColumnType {
    const text = this.#text;
    const encode = ((): ValueEncoder => {
      switch (form) {
        case "boolean":
          return encodeBoolean;
        case "number":
        case "float":
          return encodeNumber;
        case "bytea":
          return encodeBytea;
        case "char":
          return encodeChar;
        case "json":
          return jsonEncoder(text);
        case "date":
          return encodeDate;
        case "time":
          return encodeTime;
        case "timetz":
          return encodeTimeZoned;
        case "timestamp":
          return encodeTimestamp;
        case "timestamptz":
          return encodeTimestampZoned;
        case "interval":
          return encodeInterval;
        case "vector":
          return encodeVector;
        case "numeric":
        case "bpchar":
        case "text":
          return text.json;
      }
    })();
    const write = valueWriter(form, text.encoding, encode);
    if (form === "char") return { encode, write, keyText: charText, keyIsText: true };
    if (form === "numeric" || form === "bpchar" || form === "float") {
      const keyText: ValueEncoder = (b, start, end) => canonicalText(form, text.decode(b, start, end));
      return { encode, write, keyText, keyIsText: false };
    }
    const jsonNulls = form === "json" ? jsonNullAt : undefined;
    return { encode, write, keyText: text.decode, keyIsText: true, jsonNulls };
  }
}
