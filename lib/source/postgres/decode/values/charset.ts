import { isAscii } from "node:buffer";
import { NotText } from "./encoder.ts";

/*
 * The encodings of databases other than UTF-8, as we read them ourselves: the server, asked for UTF-8, ends the stream at the first
 * character that it has no UTF-8 for (22P05), before it sends the change. What the server can convert we read as it does
 * (test/postgres/encodings.test.ts holds every character against it); Node's decoders differ from it in what is corrected here.
 * https://www.postgresql.org/docs/current/multibyte.html, https://encoding.spec.whatwg.org/
 */

/** Bytes as one number → the character that PostgreSQL has for them. */
type Corrections = ReadonlyMap<number, string>;

interface SingleByte {
  readonly label: string | undefined;
  readonly corrections?: Corrections;
}

/** The bytes of ISO 8859 below 0xa0, which the web's decoders take for those of Windows. */
const CONTROLS: Corrections = new Map(
  Array.from({ length: 32 }, (_, i) => [0x80 + i, String.fromCharCode(0x80 + i)]),
);

const SINGLE_BYTE: Readonly<Record<string, SingleByte>> = {
  // Each byte is its character.
  LATIN1: { label: undefined },
  LATIN2: { label: "iso-8859-2" },
  LATIN3: { label: "iso-8859-3" },
  LATIN4: { label: "iso-8859-4" },
  LATIN5: { label: "iso-8859-9", corrections: CONTROLS },
  LATIN6: { label: "iso-8859-10" },
  LATIN7: { label: "iso-8859-13" },
  LATIN8: { label: "iso-8859-14" },
  LATIN9: { label: "iso-8859-15" },
  LATIN10: { label: "iso-8859-16" },
  ISO_8859_5: { label: "iso-8859-5" },
  ISO_8859_6: { label: "iso-8859-6" },
  ISO_8859_7: { label: "iso-8859-7" },
  ISO_8859_8: { label: "iso-8859-8" },
  WIN1250: { label: "windows-1250" },
  WIN1251: { label: "windows-1251" },
  WIN1252: { label: "windows-1252" },
  WIN1253: { label: "windows-1253" },
  WIN1254: { label: "windows-1254" },
  WIN1255: { label: "windows-1255" },
  WIN1256: { label: "windows-1256" },
  WIN1257: { label: "windows-1257" },
  WIN1258: { label: "windows-1258" },
  WIN866: { label: "ibm866" },
  WIN874: { label: "windows-874" },
  KOI8R: { label: "koi8-r" },
  // The web's is a mix with KOI8-RU.
  KOI8U: {
    label: "koi8-u",
    corrections: new Map([
      [0xae, "\u255d"],
      [0xbe, "\u256c"],
    ]),
  },
};

/** JIS X 0212's rows 83 and 84 as IBM and NEC fill them: the server has them, Node has not. */
const IBM_ROWS = {
  from: 0x8ff3f3,
  text: "ⅰⅱⅲⅳⅴⅵⅶⅷⅸⅹⅠⅡⅢⅣⅤⅥⅦⅧⅨⅩ＇＂㈱№℡炻仼僴凬匇匤\ufa0e咊坙\ufa0f\ufa10增寬峵嵓\ufa11德悅愠敎昻晥\ufa12\uf929栁\ufa13\ufa14橫櫢淸淲瀨\ufa15\ufa16甁皂皞\ufa17礰\ufa18\ufa19\ufa1a\ufa1b竧\ufa1c\ufa1d綠緖\ufa1e荢\ufa1f薰\ufa20\ufa21蠇\ufa22譿賴赶\ufa23\ufa24\ufa25郞\ufa26鄕\ufa27\ufa28閒\uf9dc\ufa29霻靍靑\ufa2a\ufa2b\ufa2c馞髙魲\ufa2d黑",
};

const MULTI_BYTE: Readonly<Record<string, { readonly label: string; readonly corrections: Corrections }>> = {
  EUC_CN: {
    label: "gb2312",
    corrections: new Map([
      [0xa1a4, "\u30fb"],
      [0xa1aa, "\u2015"],
    ]),
  },
  EUC_KR: {
    label: "euc-kr",
    corrections: new Map([
      [0xa2e6, "\u20ac"],
      [0xa2e7, "\u00ae"],
      [0xa2e8, "\u327e"],
    ]),
  },
  EUC_JP: {
    label: "euc-jp",
    corrections: new Map([
      [0x8fa2c3, "\uffe4"],
      // A row ends with 0xfe, the next begins with 0xa1.
      ...[...IBM_ROWS.text].map((character, i): [number, string] => [
        i < 12 ? IBM_ROWS.from + i : 0x8ff4a1 + i - 12,
        character,
      ]),
    ]),
  },
};

/** A database encoding that we read ourselves, by PostgreSQL's name. */
export type ServerEncoding = string & { readonly serverEncoding: never };

/** The encoding of this name if it is one that we read; UTF8 and SQL_ASCII are none of these. */
export function serverEncoding(name: string): ServerEncoding | undefined {
  return Object.hasOwn(SINGLE_BYTE, name) || Object.hasOwn(MULTI_BYTE, name)
    ? (name as ServerEncoding)
    : undefined;
}

/** Reads text. @throws NotText where a character is none of the encoding. */
export type TextDecode = (buffer: Buffer, start: number, end: number) => string;

/** The reader for an encoding. */
export function textDecode(name: ServerEncoding): TextDecode {
  const single = SINGLE_BYTE[name];
  if (single) return single.label === undefined ? decodeLatin1 : decodeSingleByte(name, single);
  const { label, corrections } = MULTI_BYTE[name] as (typeof MULTI_BYTE)[string];
  return decodeMultiByte(name, label, corrections);
}

const decodeLatin1: TextDecode = (buffer, start, end) => buffer.toString("latin1", start, end);

function decodeSingleByte(name: string, { label, corrections }: SingleByte): TextDecode {
  const decoder = new TextDecoder(label, { fatal: true });
  const characters = Array.from({ length: 256 }, (_, byte) => {
    try {
      return corrections?.get(byte) ?? decoder.decode(Uint8Array.of(byte));
    } catch {
      return undefined;
    }
  });
  return (buffer, start, end) => {
    if (isAscii(buffer.subarray(start, end))) return buffer.toString("latin1", start, end);
    let text = "";
    for (let at = start; at < end; at++) {
      const character = characters[buffer[at] as number];
      if (character === undefined) throw new NotText(start, name);
      text += character;
    }
    return text;
  };
}

/** EUC: bytes of ASCII are ASCII; 0x8e begins two bytes, 0x8f three, another two. */
function decodeMultiByte(name: string, label: string, corrections: Corrections): TextDecode {
  const decoder = new TextDecoder(label, { fatal: true });
  return (buffer, start, end) => {
    if (isAscii(buffer.subarray(start, end))) return buffer.toString("latin1", start, end);
    const run = (from: number, to: number) => {
      try {
        return decoder.decode(buffer.subarray(from, to));
      } catch {
        throw new NotText(start, name);
      }
    };
    let text = "";
    let from = start;
    for (let at = start; at < end; ) {
      const byte = buffer[at] as number;
      const length = byte < 0x80 ? 1 : byte === 0x8f ? 3 : 2;
      const character =
        length === 1 || at + length > end ? undefined : corrections.get(buffer.readUIntBE(at, length));
      if (character !== undefined) {
        text += run(from, at) + character;
        from = at + length;
      }
      at += length;
    }
    return text + run(from, end);
  };
}
