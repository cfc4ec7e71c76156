import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { TributaryError } from "../../../lib/change/tributary-error.ts";
import { HistoryPass } from "../../../lib/source/postgres/slot/history-pass.ts";
import {
  checkPlaces,
  HistoryProof,
  lastPlaces,
  placeOfCommit,
} from "../../../lib/source/postgres/slot/history-proof.ts";
import { SentSince } from "../../../lib/source/postgres/slot/sent-since.ts";
import type { CommitFingerprint, LogPlace } from "../../../lib/source/postgres/slot/slot-record.ts";

const commit = (commitLsn: bigint, more: Partial<CommitFingerprint> = {}): CommitFingerprint => ({
  ...{ commitLsn, xid: Number(commitLsn), commitTime: commitLsn * 1_000_000n },
  ...more,
});
const place = (lsn: bigint): LogPlace => placeOfCommit(commit(lsn));
const code = (run: () => void): string | undefined => {
  try {
    run();
    return undefined;
  } catch (error) {
    return (error as TributaryError).code;
  }
};

describe("places that the server must show", () => {
  test.each<{
    what: string;
    places: LogPlace[];
    run: (proof: HistoryProof) => void;
    code?: string;
    done?: boolean;
  }>([
    { what: "met", places: [place(10n)], run: (p) => p.begin(commit(10n)), done: true },
    {
      what: "what stands between them says nothing",
      places: [place(10n), place(30n)],
      run: (p) => [5n, 10n, 20n, 30n].map((lsn) => p.begin(commit(lsn))),
      done: true,
    },
    { what: "not reached yet", places: [place(10n)], run: (p) => p.begin(commit(9n)), done: false },
    { what: "a keepalive at it", places: [place(10n)], run: (p) => p.passed(10n), done: false },
    {
      what: "a keepalive behind it",
      places: [place(10n)],
      run: (p) => p.passed(11n),
      code: "HISTORY_FORKED",
    },
    {
      what: "a commit behind it",
      places: [place(10n)],
      run: (p) => p.begin(commit(11n)),
      code: "HISTORY_FORKED",
    },
    {
      what: "another transaction there",
      places: [place(10n)],
      run: (p) => p.begin(commit(10n, { xid: 11 })),
      code: "HISTORY_FORKED",
    },
    {
      what: "the same one at another time",
      places: [place(10n)],
      run: (p) => p.begin(commit(10n, { commitTime: 10_001_000n })),
      code: "HISTORY_FORKED",
    },
    {
      what: "the time as an event has it, in milliseconds",
      places: [place(10n)],
      run: (p) => p.begin(commit(10n, { commitTime: 10_000_999n })),
      done: true,
    },
    { what: "a message", places: [{ lsn: 10n, message: true }], run: (p) => p.message(10n), done: true },
    {
      what: "a commit where a message was",
      places: [{ lsn: 10n, message: true }],
      run: (p) => p.begin(commit(10n)),
      code: "HISTORY_FORKED",
    },
    {
      what: "a message where a commit was",
      places: [place(10n)],
      run: (p) => p.message(10n),
      code: "HISTORY_FORKED",
    },
    { what: "a message behind it", places: [place(10n)], run: (p) => p.message(11n), code: "HISTORY_FORKED" },
    {
      what: "either, where only the place is known",
      places: [{ lsn: 10n }],
      run: (p) => p.message(10n),
      done: true,
    },
    { what: "either, as a commit", places: [{ lsn: 10n }], run: (p) => p.begin(commit(10n)), done: true },
    {
      what: "two histories in one stream are met by no server",
      places: [place(10n), { lsn: 10n, commit: { xid: 11, timeMs: 0 } }],
      run: (p) => p.begin(commit(10n)),
      code: "HISTORY_FORKED",
    },
  ])("$what", ({ places, run, code: expected, done }) => {
    const proof = new HistoryProof(places);
    expect(code(() => run(proof))).toBe(expected);
    if (done !== undefined) expect(proof.done).toBe(done);
  });

  test("of those that were shown, the last tell of all", () => {
    const message: LogPlace = { lsn: 30n, message: true };
    const unknown: LogPlace = { lsn: 40n };
    expect(lastPlaces([])).toEqual([]);
    expect(lastPlaces([place(20n), place(10n)])).toEqual([place(20n)]);
    expect(lastPlaces([unknown, place(20n), message, place(10n)])).toEqual([place(20n), unknown]);
    expect(lastPlaces([message, message])).toEqual([message]);
  });

  const server = { systemId: "7", timeline: 1, walEnd: 11n };
  test.each<{
    what: string;
    walEnd?: bigint;
    timeline?: number;
    history?: [number, bigint][];
    code?: string;
  }>([
    { what: "the log ends behind it" },
    { what: "the log ends at it", walEnd: 10n, code: "SERVER_BEHIND" },
    { what: "promoted behind it", timeline: 2, history: [[1, 11n]] },
    { what: "promoted at it", timeline: 2, history: [[1, 10n]], code: "TIMELINE_FORKED" },
    {
      what: "promoted before it, and written on",
      timeline: 2,
      walEnd: 90n,
      history: [[1, 9n]],
      code: "TIMELINE_FORKED",
    },
  ])(
    "the server's own word: $what",
    ({ walEnd = server.walEnd, timeline = 1, history = [], code: expected }) => {
      const facts = { ...server, walEnd, timeline };
      expect(code(() => checkPlaces([place(5n), place(10n)], 1, facts, new Map(history)))).toBe(expected);
    },
  );
});

describe("the pass over what the server sends", () => {
  const xlog = (payload: Buffer) => Buffer.concat([Buffer.from("w"), Buffer.alloc(24), payload]);
  const begin = ({ commitLsn, commitTime, xid }: CommitFingerprint) => {
    const payload = Buffer.alloc(21);
    payload.write("B");
    payload.writeBigUInt64BE(commitLsn, 1);
    payload.writeBigInt64BE(commitTime, 9);
    payload.writeUInt32BE(xid, 17);
    return xlog(payload);
  };
  const message = (lsn: bigint, flags: number) => {
    const payload = Buffer.alloc(12);
    payload.write("M");
    payload[1] = flags;
    payload.writeBigUInt64BE(lsn, 2);
    return xlog(payload);
  };
  const end = xlog(Buffer.from("C"));
  const keepalive = (lsn: bigint, reply = 0) => {
    const frame = Buffer.alloc(18);
    frame.write("k");
    frame.writeBigUInt64BE(lsn, 1);
    frame[17] = reply;
    return frame;
  };
  const pass = (places: LogPlace[], ...frames: Buffer[]) => {
    const server = {
      timeline: 1,
      system: { systemId: "7", timeline: 1, walEnd: 1_000n },
      history: new Map(),
    };
    const made = new HistoryPass(places, server, () => {});
    made.begin();
    const answers = frames.map((frame) => {
      // As frames lie in the read buffer: not at its start.
      const buffer = Buffer.concat([Buffer.alloc(7), frame, Buffer.alloc(3)]);
      return made.take(buffer, 7, 7 + frame.length);
    });
    return { made, answers };
  };

  test("commits, messages outside transactions and keepalives count, the rest is passed", () => {
    const change = xlog(Buffer.from("I whatever"));
    const { made } = pass(
      [place(10n), { lsn: 20n, message: true }],
      ...[begin(commit(5n)), change, message(7n, 1), keepalive(900n), end],
      ...[begin(commit(10n)), end, message(19n, 0), message(21n, 0)],
    );
    expect(made.done).toBe(true);
  });

  test("a keepalive inside a transaction says nothing of what stands behind it", () => {
    expect(code(() => pass([place(10n)], begin(commit(5n)), keepalive(900n)))).toBeUndefined();
    expect(code(() => pass([place(10n)], begin(commit(5n)), end, keepalive(900n)))).toBe("HISTORY_FORKED");
  });

  test("a message of a transaction is not one of its own place", () => {
    expect(code(() => pass([{ lsn: 10n, message: true }], begin(commit(10n)), message(11n, 1)))).toBe(
      "HISTORY_FORKED",
    );
  });

  test("a server that wants an answer is told so", () => {
    expect(pass([place(10n)], keepalive(4n, 1), keepalive(5n)).answers).toEqual([true, false]);
  });
});

test("since when: everything that was given earlier stands before the place, and no sample says later than that", () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ gives: fc.nat(3), asks: fc.boolean() }), { maxLength: 400 }),
      (steps) => {
        const since = new SentSince(2);
        const givenAt: number[] = [];
        let now = 0;
        let confirmed = 0;
        for (const { gives, asks } of steps) {
          now++;
          since.note(BigInt(givenAt.length), now, now);
          for (let i = 0; i < gives; i++) givenAt.push(now);
          if (!asks || givenAt.length === 0) continue;
          confirmed = Math.min(confirmed + 2, givenAt.length);
          const at = since.at(BigInt(confirmed));
          // What is not confirmed was given then or later.
          for (const given of givenAt.slice(confirmed)) expect(given).toBeGreaterThanOrEqual(at as number);
        }
      },
    ),
  );
});

test("since when: the samples are bounded, and the first stays while nothing is confirmed", () => {
  const since = new SentSince(1);
  for (let now = 1; now <= 5_000; now++) since.note(BigInt(now), now, now);
  expect(since.at(1n)).toBe(1);
  expect(since.at(4_000n)).toBeLessThanOrEqual(4_000);
  expect(since.at(4_000n)).toBeGreaterThan(3_900);
  expect(since.at(0n)).toBeUndefined();
});
