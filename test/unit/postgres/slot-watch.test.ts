import { expect, test } from "vitest";
import type { SlotFacts } from "../../../lib/source/postgres/slot/slot.ts";
import { type SlotSighting, SlotWatch } from "../../../lib/source/postgres/slot/slot-watch.ts";

const MB = 1024 * 1024;
const slot: SlotFacts = {
  name: "tributary_shop",
  plugin: "pgoutput",
  logical: true,
  database: "shop",
  temporary: false,
  twoPhase: false,
  activePid: 1,
  holder: "tributary",
  confirmedLsn: 0n,
  restartLsn: 0n,
  walStatus: "reserved",
  safeWalSize: undefined,
  invalidationReason: undefined,
  unused: false,
};

function watch() {
  const warnings: { message: string; fields: Record<string, unknown> }[] = [];
  const slotWatch = new SlotWatch({
    info: () => {},
    warn: (message, fields = {}) => void warnings.push({ message, fields }),
    error: () => {},
  });
  const see = (seconds: number, sighting: Partial<SlotSighting>) =>
    slotWatch.take({ atMs: seconds * 1000, slot, serverLsn: 0n, oldestTransaction: undefined, ...sighting });
  return { slotWatch, warnings, see };
}

test("an hour before the slot is lost the log says so, once in ten minutes", () => {
  const { slotWatch, warnings, see } = watch();
  // 1 MB a second; the bound is 5000 MB.
  for (let s = 0; s <= 3000; s += 10) {
    see(s, { serverLsn: BigInt(s * MB), slot: { ...slot, safeWalSize: (5000 - s) * MB } });
    if (s === 1390) expect(warnings).toEqual([]);
    if (s === 1410) expect(warnings.length).toBe(1);
  }
  expect(warnings.length).toBe(3);
  expect(warnings[0]?.message).toMatch(/"tributary_shop" in about 60 min/);
  expect(warnings[0]?.fields.remedy).toMatch(/max_slot_wal_keep_size/);
  expect(slotWatch.health).toMatchObject({ walHeldBytes: 3000 * MB, safeWalBytes: 2000 * MB });
  expect(slotWatch.health.walLossSeconds).toBeCloseTo(2000, 0);
});

test("a long transaction is named when it holds much back; how to end it is told", () => {
  const { slotWatch, warnings, see } = watch();
  const transaction = { pid: 4711, xid: "900", seconds: 599, name: "report" };
  see(0, { serverLsn: BigInt(500 * MB), oldestTransaction: transaction });
  see(10, { serverLsn: BigInt(10 * MB), oldestTransaction: { ...transaction, seconds: 700 } });
  expect(warnings).toEqual([]);
  see(20, { serverLsn: BigInt(500 * MB), oldestTransaction: { ...transaction, seconds: 710 } });
  see(30, { serverLsn: BigInt(500 * MB), oldestTransaction: { ...transaction, seconds: 720 } });
  expect(warnings.map(({ message }) => message)).toEqual([
    'a transaction of process 4711 ("report") is open for 12 min: the server keeps 500 MB of WAL until it ends',
  ]);
  expect(warnings[0]?.fields.remedy).toContain("pg_terminate_backend(4711)");
  expect(slotWatch.health).toMatchObject({ oldestTransactionSeconds: 720, oldestTransactionPid: 4711 });
});

test("a role that may not see ages counts from when it saw the transaction first", () => {
  const { slotWatch, warnings, see } = watch();
  const hidden = { pid: undefined, xid: "900", seconds: undefined, name: "two" };
  see(0, { serverLsn: BigInt(500 * MB), oldestTransaction: { ...hidden, xid: "899" } });
  see(100, { serverLsn: BigInt(500 * MB), oldestTransaction: hidden });
  see(690, { serverLsn: BigInt(500 * MB), oldestTransaction: hidden });
  expect(warnings).toEqual([]);
  see(710, { serverLsn: BigInt(500 * MB), oldestTransaction: hidden });
  expect(warnings[0]?.message).toMatch(/the prepared transaction "two"/);
  see(720, {});
  expect(slotWatch.health.oldestTransactionSeconds).toBeUndefined();
});
