import { Readable } from "node:stream";
import { setImmediate as tick } from "node:timers/promises";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { SourceMessage } from "../../lib/change/change-stream.ts";
import { formatLsn } from "../../lib/change/lsn.ts";
import { TributaryError } from "../../lib/change/tributary-error.ts";
import type { ChangeDecoder } from "../../lib/source/postgres/decode/change-decoder.ts";
import { CopyBoth } from "../../lib/source/postgres/link/copy-both.ts";
import { parseCopyData } from "./fixtures/copy-data.ts";
import {
  decodeFrames,
  recorded,
  recordedCatalog,
  recordedFrames,
  recordedMessages,
  stillDecoder,
} from "./fixtures/hostile-stream.ts";

const catalog = recordedCatalog();
const frames = recordedFrames();
const expected = recorded("events.jsonl").toString().trimEnd().split("\n");

const messages = recordedMessages();

describe("a recorded hostile stream", () => {
  test("gives the events that were looked at when it was recorded, each closing to JSON", async () => {
    const lines = await decodeFrames(frames, catalog);
    expect(lines).toEqual(expected);
    for (const line of lines.filter((l) => !l.startsWith("{"))) {
      const json = line.slice(line.indexOf(" {") + 1);
      expect(JSON.parse(`${json},"after":null}}`).source.after).toBeNull();
    }
  });

  test("cut in two at every byte border of the wire, gives the same frames and events", async () => {
    const wire = recorded("copydata");
    for (let cut = 0; cut <= wire.length; cut++) {
      const received = await throughFraming([wire.subarray(0, cut), wire.subarray(cut)]);
      if (received.length !== frames.length) expect.fail(`cut at ${cut}: ${received.length} frames`);
      const lines = await decodeFrames(received, catalog);
      if (lines.join("\n") !== expected.join("\n")) expect(lines, `cut at ${cut}`).toEqual(expected);
    }
  }, 240_000);

  test("byte by byte, the same", async () => {
    const wire = recorded("copydata");
    const received = await throughFraming(Array.from(wire, (byte) => Buffer.from([byte])));
    expect(await decodeFrames(received, catalog)).toEqual(expected);
  });

  test("keeps nothing of the buffer: it may be overwritten after each message", async () => {
    const decoder = stillDecoder(catalog);
    const out: SourceMessage[] = [];
    for (const { payload, lsn } of messages) {
      const borrowed = Buffer.from(payload);
      const wait = decoder.decode(borrowed, lsn, out);
      borrowed.fill(0x21);
      await wait;
    }
    const changes = out.flatMap((m) => (m.kind === "change" ? [m.json] : []));
    const lines = expected.filter((l) => !l.startsWith("{")).map((l) => l.slice(l.indexOf(" {") + 1));
    expect(changes).toEqual(lines);
  });
});

describe("bytes that are not what they should be", () => {
  test("each message cut short, or with a byte too many: an error that names message and offset", async () => {
    for (let i = 0; i < messages.length; i++) {
      const { payload, lsn } = messages[i] as (typeof messages)[number];
      const decoder = await decoderBefore(i);
      const wrong = [...Array(payload.length).keys()].map((end) => payload.subarray(0, end));
      wrong.push(Buffer.concat([payload, Buffer.of(0)]));
      for (const bytes of wrong) {
        const error = await failure(decoder, bytes, lsn);
        expect(error).toMatchObject({
          code: "PGOUTPUT_MALFORMED",
          malformation: { type: expect.stringMatching(/^\w+$|^\(no type\)$/), offset: expect.any(Number) },
        });
        expect(error?.message).toMatch(/^pgoutput .+ message, offset \d+: expected .+, got .+$/);
      }
    }
  });

  test("random bytes: a typed error or none, never another, never a hang", async () => {
    const typeByte = fc.constantFrom(...Buffer.from("BCORYIUDTMSEcAbPKrp"));
    await fc.assert(
      fc.asyncProperty(typeByte, fc.uint8Array({ maxLength: 200 }), fc.boolean(), async (type, rest, raw) => {
        const decoder = await decoderBefore(4);
        await failure(decoder, raw ? Buffer.from(rest) : Buffer.from([type, ...rest]), 1n);
      }),
      { numRuns: 10_000 },
    );
  }, 120_000);

  test("recorded messages with bytes changed: a typed error, or events that are JSON", async () => {
    const change = fc.record({ at: fc.nat(), byte: fc.nat(255), cut: fc.boolean() });
    await fc.assert(
      fc.asyncProperty(
        fc.nat(messages.length - 1),
        fc.array(change, { minLength: 1, maxLength: 4 }),
        async (i, changes) => {
          const { payload, lsn } = messages[i] as (typeof messages)[number];
          let bytes = Buffer.from(payload);
          for (const { at, byte, cut } of changes) {
            if (bytes.length > 1 && cut) bytes = bytes.subarray(0, 1 + (at % bytes.length));
            else bytes[at % bytes.length] = byte;
          }
          const out: SourceMessage[] = [];
          await failure(await decoderBefore(i), bytes, lsn, out);
          for (const message of out) {
            // json is embedded as PostgreSQL validated it, so what a broken wire makes of it is not checked again.
            if (message.kind !== "change" || message.json.includes('"j":')) continue;
            JSON.parse(`${message.json},"after":null}}`);
          }
        },
      ),
      { numRuns: 10_000 },
    );
  }, 240_000);

  test("random CopyData frames: a typed error or a frame", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), fc.constantFrom(0x77, 0x6b, undefined), (rest, type) => {
        const frame = Buffer.from(type === undefined ? rest : [type, ...rest]);
        try {
          parseCopyData(frame);
        } catch (error) {
          expect(error).toMatchObject({ code: "PGOUTPUT_MALFORMED" });
        }
      }),
      { numRuns: 10_000 },
    );
  });

  test("a value beyond what one text can hold: a typed error", async () => {
    const insert = messages.findIndex((m) => m.payload.includes("tab\there"));
    const { payload, lsn } = messages[insert] as (typeof messages)[number];
    const decoder = await decoderBefore(insert);
    // The second column's text grown to 600 MB; memory that nobody touches costs nothing.
    const at = payload.indexOf("tab\there") - 4;
    const { length } = payload;
    const grown = 600_000_000 - payload.readInt32BE(at);
    const huge = Buffer.alloc(length + grown);
    payload.copy(huge, 0, 0, at);
    huge.writeInt32BE(600_000_000, at);
    payload.copy(huge, at + 4 + 600_000_000, at + 4 + payload.readInt32BE(at));
    expect(await failure(decoder, huge, lsn)).toMatchObject({ code: "CHANGE_TOO_LARGE" });
  });

  test("messages out of their order are refused: nothing may be lost or doubled in silence", async () => {
    const of = (type: string) => messages.filter((m) => m.payload[0] === type.charCodeAt(0));
    const insert = messages.findIndex((m) => m.payload[0] === 0x49);
    const begin = messages.findLastIndex((m, i) => i < insert && m.payload[0] === 0x42);
    const refused = async (...sequence: { payload: Buffer; lsn: bigint }[]) => {
      const decoder = stillDecoder(catalog);
      let error: TributaryError | undefined;
      for (const { payload, lsn } of sequence) error = await failure(decoder, payload, lsn);
      return error?.message;
    };
    const at = (i: number) => messages[i] as (typeof messages)[number];
    const [firstBegin, secondBegin] = of("B") as [(typeof messages)[number], (typeof messages)[number]];
    const [firstCommit, secondCommit] = of("C") as [(typeof messages)[number], (typeof messages)[number]];
    expect(await refused(at(insert))).toMatch(
      /Insert message at .+: expected it inside a transaction, got it outside/,
    );
    expect(await refused(at(begin), at(insert))).toMatch(/expected a relation told before, got relation \d+/);
    expect(await refused(firstBegin, secondBegin)).toMatch(
      /Begin message at .+: expected the commit of the open/,
    );
    expect(await refused(firstBegin, secondCommit)).toMatch(
      /Commit message at .+: expected commit [0-9A-F/]+, got/,
    );
    expect(await refused(firstCommit)).toMatch(/expected it inside a transaction/);
    expect(await refused(secondBegin, secondCommit, firstBegin)).toMatch(
      /expected a commit after [0-9A-F/]+, got commit/,
    );
  });
});

describe("a link that is lost at any message and read again from the slot's place", () => {
  const given = (out: readonly SourceMessage[]) =>
    out.flatMap((m) =>
      m.kind === "change" ? [m.position] : m.kind === "commit" ? [formatLsn(m.endPlace)] : [],
    );
  const once = async (decoder: ChangeDecoder, upTo: number) => {
    const out: SourceMessage[] = [];
    for (const { payload, lsn } of messages.slice(0, upTo)) await decoder.decode(payload, lsn, out);
    return given(out);
  };

  test("gives each change and each commit once", async () => {
    const whole = await once(stillDecoder(catalog), messages.length);
    expect(whole.filter((m) => m.includes("/")).length).toBeGreaterThan(1);
    for (let cut = 1; cut <= messages.length; cut++) {
      const decoder = stillDecoder(catalog);
      const before = await once(decoder, cut);
      decoder.reconnected();
      const after = await once(decoder, messages.length);
      if ([...before, ...after].join() !== whole.join()) expect.fail(`cut behind message ${cut}`);
    }
  });
});

describe("messages that protocol 1 does not have", () => {
  const abort = (bytes: number) => Buffer.concat([Buffer.from("A"), Buffer.alloc(bytes, 7)]);

  test.each([8, 24])(
    "a stream abort of %i bytes, which PostgreSQL 18 sends in protocol 1, changes nothing",
    async (n) => {
      const decoder = stillDecoder(catalog);
      const out: SourceMessage[] = [];
      for (const { payload, lsn } of messages) {
        if (!decoder.inTransaction) expect(await failure(decoder, abort(n), lsn, out)).toBeUndefined();
        await decoder.decode(payload, lsn, out);
      }
      const changes = out.flatMap((m) => (m.kind === "change" ? [m.json] : []));
      const lines = expected.filter((l) => !l.startsWith("{")).map((l) => l.slice(l.indexOf(" {") + 1));
      expect(changes).toEqual(lines);
      expect(out.length).toBe(expected.length);
    },
  );

  test("a stream abort of another length, or inside a transaction, is refused", async () => {
    for (const n of [0, 4, 7, 9, 16, 23, 25])
      expect(await failure(await decoderBefore(0), abort(n), 1n)).toMatchObject({
        code: "PGOUTPUT_MALFORMED",
        malformation: { type: "StreamAbort" },
      });
    const begin = messages.findIndex((m) => m.payload[0] === 0x42);
    expect(await failure(await decoderBefore(begin + 1), abort(8), 1n)).toMatchObject({
      code: "PGOUTPUT_ORDER",
    });
  });

  test("each other type is refused by its name, inside a transaction and outside", async () => {
    const begin = messages.findIndex((m) => m.payload[0] === 0x42);
    const names = ["Stream Start", "Stream Stop", "Stream Commit", "Begin Prepare", "Prepare"];
    names.push("Commit Prepared", "Rollback Prepared", "Stream Prepare");
    for (const before of [0, begin + 1]) {
      const told = [];
      for (const letter of "SEcbPKrp") {
        const error = await failure(
          await decoderBefore(before),
          Buffer.from(`${letter}rest`),
          0x1_0000_00ffn,
        );
        expect(error).toMatchObject({ code: "PGOUTPUT_UNASKED", retry: "stop" });
        told.push(error?.message.match(/^pgoutput (.+) message at 1\/FF: it belongs to protocol [23],/)?.[1]);
      }
      expect(told).toEqual(names);
    }
  });

  test("bytes that no protocol gives to a message are refused", async () => {
    const known = Buffer.from("BCORYIUDTMASEcbPKrp");
    for (let type = 0; type < 256; type++) {
      if (known.includes(type)) continue;
      expect(await failure(await decoderBefore(0), Buffer.of(type, 0, 0), 1n)).toMatchObject({
        code: "PGOUTPUT_MALFORMED",
        malformation: { offset: 0 },
      });
    }
  });
});

/** A decoder that has read the first messages of the recording. */
async function decoderBefore(count: number): Promise<ChangeDecoder> {
  const decoder = stillDecoder(catalog);
  const out: SourceMessage[] = [];
  // From the transaction's begin on, with every relation told until then: the rest tells it nothing.
  const from = messages.findLastIndex((m, i) => i < count && m.payload[0] === 0x42);
  const open = from !== -1 && !messages.slice(from, count).some((m) => m.payload[0] === 0x43);
  for (const [i, { payload, lsn }] of messages.slice(0, count).entries()) {
    const type = payload[0];
    if (type !== 0x52 && !(open && i === from)) continue;
    await decoder.decode(payload, lsn, out);
  }
  return decoder;
}

/** The typed error of a message, or undefined; anything else fails the test. */
async function failure(
  decoder: ChangeDecoder,
  payload: Buffer,
  lsn: bigint,
  out: SourceMessage[] = [],
): Promise<TributaryError | undefined> {
  try {
    await decoder.decode(payload, lsn, out);
    return undefined;
  } catch (error) {
    if (error instanceof TributaryError) return error;
    throw error;
  }
}

/** What comes out of the copy stream that production reads, when these pieces arrive on its socket. */
async function throughFraming(pieces: readonly Buffer[]): Promise<Buffer[]> {
  const socket = new Readable({ read() {} });
  socket.on("data", () => {});
  const frames: Buffer[] = [];
  const copy = new CopyBoth("", {
    onStart: () => {},
    onArrival: () => {
      while (copy.next()) {
        const { buffer, start, end } = copy.frames;
        frames.push(Buffer.from(buffer.subarray(start, end)));
      }
    },
    onEnd: () => {},
    onFinish: () => {},
    onError: (error) => {
      throw error;
    },
  });
  copy.submit({ stream: socket, query() {} });
  socket.push(Buffer.from([0x57, 0, 0, 0, 7, 0, 0, 0]));
  for (const piece of pieces) {
    if (piece.length > 0) socket.push(piece);
    await tick();
  }
  return frames;
}
