import fc from "fast-check";
import { expect, test } from "vitest";
import type { TributaryError } from "../../../lib/change/tributary-error.ts";
import { HistoryForkedError } from "../../../lib/source/postgres/postgres-errors.ts";
import { ReplayCheck } from "../../../lib/source/postgres/slot/replay-check.ts";
import { checkHistory, type SlotFacts, type SystemFacts } from "../../../lib/source/postgres/slot/slot.ts";
import type { CommitFingerprint, SlotState } from "../../../lib/source/postgres/slot/slot-record.ts";

const state: SlotState = {
  epoch: 1,
  slot: "tributary_shop",
  publication: "p",
  database: "shop",
  systemId: "7",
  timeline: 2,
  confirmedLsn: 0x500n,
  recentCommits: [],
};
const slot: SlotFacts = {
  name: "tributary_shop",
  plugin: "pgoutput",
  logical: true,
  database: "shop",
  temporary: false,
  twoPhase: false,
  activePid: undefined,
  holder: undefined,
  confirmedLsn: 0x400n,
  restartLsn: 0x300n,
  walStatus: "reserved",
  safeWalSize: undefined,
  invalidationReason: undefined,
  unused: false,
};
const system: SystemFacts = { systemId: "7", timeline: 2, walEnd: 0x900n };

test.each<{
  what: string;
  slot?: Partial<SlotFacts> | null;
  system?: Partial<SystemFacts>;
  history?: [number, bigint][];
  code: string | undefined;
}>([
  { what: "S ≤ R ≤ W", code: undefined },
  { what: "S = R = W", slot: { confirmedLsn: 0x500n }, system: { walEnd: 0x500n }, code: undefined },
  { what: "S > R", slot: { confirmedLsn: 0x501n }, code: "SLOT_AHEAD" },
  { what: "W < R", system: { walEnd: 0x4ffn }, code: "SERVER_BEHIND" },
  { what: "another cluster", system: { systemId: "8" }, code: "OTHER_SYSTEM" },
  { what: "no slot", slot: null, code: "SLOT_MISSING" },
  { what: "WAL gone", slot: { walStatus: "lost" }, code: "SLOT_LOST" },
  { what: "invalidated", slot: { invalidationReason: "idle_timeout" }, code: "SLOT_LOST" },
  { what: "another plugin", slot: { plugin: "test_decoding" }, code: "SLOT_FOREIGN" },
  { what: "another database", slot: { database: "other" }, code: "SLOT_FOREIGN" },
  { what: "a physical slot", slot: { logical: false, plugin: null }, code: "SLOT_FOREIGN" },
  { what: "promoted after R", system: { timeline: 3 }, history: [[2, 0x600n]], code: undefined },
  { what: "promoted at R", system: { timeline: 3 }, history: [[2, 0x500n]], code: undefined },
  { what: "promoted before R", system: { timeline: 3 }, history: [[2, 0x4ffn]], code: "TIMELINE_FORKED" },
  {
    what: "promoted from elsewhere",
    system: { timeline: 3 },
    history: [[1, 0x600n]],
    code: "TIMELINE_FORKED",
  },
  { what: "an older timeline", system: { timeline: 1 }, history: [], code: "TIMELINE_FORKED" },
])("$what → $code", ({ slot: slotChange, system: systemChange, history, code }) => {
  const check = () =>
    checkHistory(
      state,
      slotChange === null ? undefined : { ...slot, ...slotChange },
      { ...system, ...systemChange },
      new Map(history),
    );
  if (code === undefined) expect(check).not.toThrow();
  else
    expect(check).toThrow(
      expect.objectContaining({ code, retry: "stop", remedy: expect.stringMatching(/./) }),
    );
});

test.each([0x400n, 0x500n, 0x501n])(
  "a slot at %i that somebody reads is in use, wherever it stands: its reader moves it",
  (confirmedLsn) => {
    const held = { ...slot, confirmedLsn, activePid: 4711, holder: "tributary" };
    expect(() => checkHistory(state, held, system, new Map())).toThrow(
      expect.objectContaining({
        code: "SLOT_IN_USE",
        retry: "restart",
        message: expect.stringContaining('process 4711 ("tributary")'),
        remedy: expect.not.stringMatching(/epoch|drop/),
      }),
    );
  },
);

test.each([
  ["no slot", undefined, {}, "epoch new ("],
  ["a slot read by others", { confirmedLsn: 0x501n }, {}, "epoch new --drop-slot"],
  ["WAL gone", { walStatus: "lost" }, {}, "epoch new --drop-slot"],
  ["an older server", {}, { walEnd: 0x4ffn }, "epoch new --drop-slot"],
  ["another cluster", {}, { systemId: "8" }, "epoch new --drop-slot"],
])("%s: the remedy names the command that is the way out", (_, slotChange, systemChange, command) => {
  const facts = slotChange && { ...slot, ...slotChange };
  let remedy = "";
  try {
    checkHistory(state, facts, { ...system, ...systemChange }, new Map());
  } catch (error) {
    remedy = (error as TributaryError).remedy;
  }
  expect(remedy).toContain(`tributary ${command}`);
});

const commits = fc
  .uniqueArray(fc.bigInt({ min: 1n, max: 1000n }), { minLength: 1, maxLength: 30 })
  .map((lsns) =>
    lsns
      .sort((a, b) => Number(a - b))
      .map((commitLsn, i): CommitFingerprint => ({ commitLsn, xid: 700 + i, commitTime: commitLsn * 7n })),
  );

test("the same history passes from wherever the slot stands, and new commits are told apart", () => {
  fc.assert(
    fc.property(commits, fc.bigInt({ min: 0n, max: 1001n }), fc.nat(29), (history, start, kept) => {
      const known = history.slice(-1 - kept);
      const check = new ReplayCheck(known, start);
      for (const commit of history.filter((c) => c.commitLsn >= start))
        expect(check.begin(commit)).toBe(false);
      expect(check.done).toBe(true);
      check.passed(2000n);
      expect(check.begin({ commitLsn: 3000n, xid: 1, commitTime: 1n })).toBe(true);
    }),
  );
});

test("another history is found out by the last commit we know, at the latest", () => {
  fc.assert(
    fc.property(commits, fc.nat(29), fc.constantFrom("gone", "xid", "time", "added"), (history, at, how) => {
      const index = at % history.length;
      const victim = history[index] as CommitFingerprint;
      const forked = history.flatMap((c, i): CommitFingerprint[] => {
        if (i !== index) return [c];
        if (how === "gone") return [];
        if (how === "xid") return [{ ...c, xid: c.xid + 1 }];
        if (how === "time") return [{ ...c, commitTime: c.commitTime + 1n }];
        return [{ ...c, commitLsn: c.commitLsn * 2000n + 1n }];
      });
      const check = new ReplayCheck(history, victim.commitLsn);
      expect(() => {
        for (const c of forked.filter((c) => c.commitLsn >= victim.commitLsn)) check.begin(c);
        check.passed(10_000_000n);
      }).toThrow(HistoryForkedError);
    }),
  );
});
