import fc from "fast-check";
import { expect, test } from "vitest";
import { Acknowledgements } from "../../../lib/stream/acknowledgements.ts";

test("a commit counts when its events and all before it are stored", () => {
  const acks = new Acknowledgements();
  const first = acks.add(0);
  acks.add(0);
  acks.commit(10n, 1, 0);
  const second = acks.add(0);
  acks.commit(20n, 2, 0);
  acks.settle(second, 1);
  acks.settle(first, 1);
  expect(acks.acknowledged).toBeUndefined();
  acks.settle(first, 1);
  expect(acks.acknowledged).toEqual({ place: 20n, commitTimeMs: 2 });
});

test("stored events do not count before their commit was seen", () => {
  const acks = new Acknowledgements();
  acks.commit(5n, 0, 0);
  acks.settle(acks.add(0), 1);
  expect(acks.acknowledged?.place).toBe(5n);
  acks.add(0);
  acks.commit(10n, 1, 0);
  expect(acks.acknowledged?.place).toBe(5n);
});

test("a keepalive counts in its own place, and keeps the commit time", () => {
  const acks = new Acknowledgements();
  acks.idle(5n, 0);
  expect(acks.acknowledged).toEqual({ place: 5n, commitTimeMs: undefined });
  const transaction = acks.add(0);
  acks.commit(10n, 1, 0);
  acks.idle(15n, 0);
  expect(acks.acknowledged?.place).toBe(5n);
  acks.settle(transaction, 1);
  expect(acks.acknowledged).toEqual({ place: 15n, commitTimeMs: 1 });
});

test("a keepalive inside a transaction is not taken for its commit", () => {
  const acks = new Acknowledgements();
  acks.settle(acks.add(0), 1);
  acks.idle(99n, 0);
  expect(acks.acknowledged).toBeUndefined();
});

test("an LSN below the acknowledged one changes nothing", () => {
  const acks = new Acknowledgements();
  acks.commit(10n, 1, 0);
  acks.idle(5n, 0);
  expect(acks.acknowledged?.place).toBe(10n);
});

test("the age is that of the oldest message not acknowledged", () => {
  const acks = new Acknowledgements();
  const first = acks.add(100);
  acks.commit(10n, 1, 150);
  acks.add(200);
  expect(acks.oldestSince).toBe(100);
  acks.settle(first, 1);
  expect(acks.oldestSince).toBe(200);
});

test("transactions of one moment are acknowledged together, none before what it stands behind", () => {
  const acks = new Acknowledgements();
  const first = acks.add(7);
  acks.commit(10n, 1, 7);
  expect(acks.add(7), "the same group").toBe(first);
  acks.settle(first, 1);
  // The second transaction's beginning is in the group; its end comes later.
  expect(acks.acknowledged).toBeUndefined();
  acks.settle(first, 1);
  expect(acks.acknowledged?.place).toBe(10n);
  const later = acks.add(8);
  acks.idle(15n, 8);
  acks.commit(20n, 2, 8);
  expect(acks.acknowledged?.place).toBe(10n);
  acks.settle(later, 1);
  expect(acks.acknowledged?.place).toBe(20n);
});

test("whatever comes in one moment and in whatever order it is stored: never too far, and all of it in the end", () => {
  const message = fc.record({
    what: fc.constantFrom("event", "event", "commit", "idle"),
    later: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(message, { maxLength: 60 }), fc.infiniteStream(fc.nat()), (messages, picks) => {
      const acks = new Acknowledgements();
      /** Events not stored: the place of each in the order of all messages, and its group. */
      const waiting: { readonly place: number; readonly group: number }[] = [];
      let now = 0;
      let open = false;
      let last = 0;
      const settleOne = () => {
        const [event] = waiting.splice((picks.next().value ?? 0) % waiting.length, 1);
        if (event) acks.settle(event.group, 1);
        // The LSN of a message is its place.
        const unstored = Math.min(messages.length, ...waiting.map(({ place }) => place));
        expect(Number(acks.acknowledged?.place ?? -1n)).toBeLessThan(unstored);
      };
      messages.forEach(({ what, later }, place) => {
        if (later) now++;
        if (what === "event") {
          waiting.push({ place, group: acks.add(now) });
          open = true;
        } else if (what === "commit") {
          acks.commit(BigInt(place), place, now);
          open = false;
          last = place;
        } else {
          acks.idle(BigInt(place), now);
          if (!open) last = place;
        }
        if (waiting.length > 0 && (picks.next().value ?? 0) % 2 === 0) settleOne();
      });
      while (waiting.length > 0) settleOne();
      expect(Number(acks.acknowledged?.place ?? 0n)).toBe(last);
    }),
    { numRuns: 1000 },
  );
});

test("in any order of storing, it is the longest stored prefix of commits", () => {
  fc.assert(
    fc.property(
      fc.array(fc.nat({ max: 4 }), { minLength: 1, maxLength: 30 }),
      fc.infiniteStream(fc.nat()),
      (sizes, picks) => {
        const acks = new Acknowledgements();
        const left = [...sizes];
        const events = sizes.flatMap((size, t) => {
          const numbers = Array.from({ length: size }, () => acks.add(t));
          acks.commit(BigInt(t + 1), t, t);
          return numbers.map((number) => ({ number, transaction: t }));
        });
        while (events.length > 0) {
          const at = (picks.next().value ?? 0) % events.length;
          const [event] = events.splice(at, 1);
          if (!event) break;
          acks.settle(event.number, 1);
          left[event.transaction] = (left[event.transaction] ?? 0) - 1;
          const prefix = left.findIndex((count) => count > 0);
          const expected = BigInt(prefix === -1 ? sizes.length : prefix);
          expect(acks.acknowledged?.place ?? 0n).toBe(expected);
        }
        expect(acks.acknowledged?.place).toBe(BigInt(sizes.length));
        expect(acks.oldestSince).toBeUndefined();
      },
    ),
  );
});

test("a transaction whose events are stored waits for its commit, and its age counts until then", () => {
  const acks = new Acknowledgements();
  acks.settle(acks.add(100), 1);
  expect(acks.oldestSince).toBe(100);
  acks.commit(10n, 1, 200);
  expect(acks.oldestSince).toBeUndefined();
});

test("places may be texts: they are compared and handed back, never read", () => {
  const acks = new Acknowledgements<string>();
  const first = acks.add(0);
  acks.commit("mysql-bin.000009:4", 1, 0);
  const second = acks.add(1);
  acks.commit("mysql-bin.000010:120", 2, 1);
  acks.settle(second, 1);
  expect(acks.acknowledged).toBeUndefined();
  acks.settle(first, 1);
  expect(acks.acknowledged).toEqual({ place: "mysql-bin.000010:120", commitTimeMs: 2 });
  acks.idle("mysql-bin.000010:100", 2);
  expect(acks.acknowledged?.place).toBe("mysql-bin.000010:120");
});

test("a receipt before any commit is given at once, and acknowledges nothing", () => {
  const acks = new Acknowledgements();
  const stored: string[] = [];
  acks.receipt(() => stored.push("first"), 0);
  expect(stored).toEqual(["first"]);
  expect(acks.acknowledged).toBeUndefined();
  const group = acks.add(1);
  acks.commit(10n, 1, 1);
  acks.receipt(() => stored.push("second"), 1);
  expect(stored).toEqual(["first"]);
  acks.settle(group, 1);
  expect(stored).toEqual(["first", "second"]);
  expect(acks.acknowledged).toEqual({ place: 10n, commitTimeMs: 1 });
});
