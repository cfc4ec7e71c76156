import { type DynamoDBClient, UpdateItemCommand } from "@aws-sdk/client-dynamodb";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Claims } from "../../../lib/consume/api/once.ts";
import { RedriveLeases } from "../../../lib/consume/dead-letter/redrive-lease.ts";
import { ConsumerTable } from "../../../lib/consume/fence/consumer-table.ts";
import { Fence, type TakenPartition } from "../../../lib/consume/fence/fence.ts";
import type { PartitionItem } from "../../../lib/consume/fence/partition-item.ts";
import {
  type LeaseKind,
  PartitionLease,
  REDRIVE,
  REPLAY,
  readLease,
  takeLease,
} from "../../../lib/consume/fence/partition-lease.ts";
import { failedOf, ParkedChains } from "../../../lib/consume/hold/parked-chains.ts";
import type { StoredDeadLetter } from "../../../lib/consume/hold/parked-change.ts";
import type { MissingChanges } from "../../../lib/consume/run/missing-changes.ts";
import { MissingTable } from "../../../lib/consume/run/missing-changes.ts";
import { type CallFault, MemoryTable } from "./memory-table.ts";
import { at, TOPIC } from "./records.ts";

/* Requests that arrive a second time, however late (rule 37). */

const { signal } = new AbortController();
let clock = 0;
beforeEach(() => {
  clock = Date.parse("2026-01-01T00:00:00Z");
  vi.spyOn(Date, "now").mockImplementation(() => clock);
});
afterEach(() => void vi.restoreAllMocks());

/** A state table, and a client that sends the next write twice: the second one arrives when `arrive` is called. */
function delayed() {
  const table = new MemoryTable();
  let fault: CallFault = "none";
  let wait = Promise.withResolvers<void>();
  const dynamodb = table.client(
    async (when, what) => {
      if (when === "after" || what === "get" || what === "query") return "none";
      const now = fault;
      fault = "none";
      return now;
    },
    () => wait.promise,
  );
  return {
    table,
    dynamodb,
    twice: () => {
      fault = "twice";
      wait = Promise.withResolvers<void>();
    },
    arrive: async () => {
      wait.resolve();
      await new Promise((resolve) => setImmediate(resolve));
    },
  };
}

const group = { topic: TOPIC, group: 0 };

function tableOf(dynamodb: DynamoDBClient): ConsumerTable {
  return new ConsumerTable({ dynamodb, table: "t", pipeline: "p", consumer: "c" });
}

function itemOf(dynamodb: DynamoDBClient): PartitionItem {
  return new RedriveLeases(tableOf(dynamodb)).item(TOPIC, 0, signal);
}

async function takeFree(item: PartitionItem, kind: LeaseKind, name: string): Promise<PartitionLease> {
  const lease = await takeLease(item, kind, name);
  if (!(lease instanceof PartitionLease)) throw new Error(`${lease.name} has the lease`);
  return lease;
}

/** Another process takes a lease, by a clock behind ours: before our request, or between its look and its write. */
async function besideAnother(kind: LeaseKind, when: "before it looks" | "after it looked") {
  const { table, dynamodb, twice, arrive } = delayed();
  const begin = async () => {
    clock -= 100;
    const lease = await takeFree(itemOf(table.client(async () => "none")), kind, "another's");
    clock += 100;
    return lease;
  };
  let lease: PartitionLease | undefined;
  const send = dynamodb.send.bind(dynamodb);
  /** The next request, sent twice. */
  const request = async <T>(make: () => Promise<T>): Promise<T> => {
    if (when === "before it looks") lease = await begin();
    twice();
    dynamodb.send = (async (command: object, options: never) => {
      if (command instanceof UpdateItemCommand) lease ??= await begin();
      return send(command as never, options);
    }) as typeof dynamodb.send;
    return make();
  };
  return { table, dynamodb, request, arrive, end: async () => lease?.release() };
}

describe.each(["before it looks", "after it looked"] as const)("where another takes a lease %s", (when) => {
  it.each([
    { kind: REPLAY, earlier: false },
    { kind: REPLAY, earlier: true },
    { kind: REDRIVE, earlier: true },
  ])(
    "a take is refused for good: $kind.name, had by somebody before: $earlier",
    async ({ kind, earlier }) => {
      const { table, dynamodb, request, arrive, end } = await besideAnother(kind, when);
      if (earlier) await (await takeFree(itemOf(dynamodb), kind, "an earlier one's")).release();
      clock += 1_000;
      const taken = await request(() => takeLease(itemOf(dynamodb), kind, "ours"));
      expect(taken).toMatchObject({ name: "another's" });
      await end();
      await arrive();
      expect(readLease(table.item(`fence#${TOPIC}#0`), kind, 0).name).toBeUndefined();
      await (await takeFree(itemOf(dynamodb), kind, "the next one's")).release();
    },
  );

  it("nothing is written later of what a redrive's keys refused to be overtaken by", async () => {
    const { dynamodb, request, arrive, end } = await besideAnother(REDRIVE, when);
    const fence = new Fence(tableOf(dynamodb));
    const { token } = (await fence.take(group, [0], "invocation", signal)).get(0) as TakenPartition;
    const progress = { partition: 0, position: at(1), writer: 1, attempts: undefined, parked: undefined };
    const outcome = await request(() => fence.overtake(group, { progress, token }, signal));
    expect(outcome).toBe("redriven");
    await end();
    await arrive();
    expect(await fence.note(group, { progress, token }, signal), "it still is its owner's").toBe(true);
  });
});

describe("a claim", () => {
  it("that its own request brings back after it was released ends with its lease", async () => {
    const { dynamodb, twice, arrive } = delayed();
    const claims = new Claims(new ConsumerTable({ dynamodb, table: "t", pipeline: "p", consumer: "c" }));
    twice();
    expect(await claims.claim("a", "first", 900_000, signal)).toBe(true);
    await claims.release("a", "first", signal);
    await arrive();
    const second = () => claims.claim("a", "second", 1_000, AbortSignal.timeout(100));
    await expect(second()).rejects.toMatchObject({ code: "CLAIM_HELD" });
    clock += 910_000;
    expect(await second()).toBe(true);
  });

  it("that was released is its owner's again, and not the one's who released it before", async () => {
    const { dynamodb, twice, arrive } = delayed();
    const claims = new Claims(new ConsumerTable({ dynamodb, table: "t", pipeline: "p", consumer: "c" }));
    expect(await claims.claim("a", "first", 900_000, signal)).toBe(true);
    twice();
    await claims.release("a", "first", signal);
    clock += 100;
    expect(await claims.claim("a", "second", 900_000, signal)).toBe(true);
    await arrive();
    clock += 100;
    const third = claims.claim("a", "third", 1_000, AbortSignal.timeout(100));
    await expect(third).rejects.toMatchObject({ code: "CLAIM_HELD" });
    await claims.done("a", "second", signal);
    expect(await claims.claim("a", "third", 1_000, signal)).toBe(false);
  });
});

describe("a letter", () => {
  const place = { topic: TOPIC, partition: 0, chain: "chain" };
  const facts = { name: "Error", message: "", stack: "" };
  const letter = {
    ...{ ...place, key: "1", table: "public.orders", position: at(1), attempts: 3, error: facts },
    ...{ firstFailedAt: "2026-01-01T00:00:00Z", lastFailedAt: "2026-01-01T00:00:00Z" },
  };
  const failure = { attempts: 3, lastFailedAt: "2026-01-01T00:00:01Z", error: facts };

  it("tells the last change that took effect, whatever arrives of those before", async () => {
    const { dynamodb, twice, arrive } = delayed();
    const parking = new ParkedChains(
      new ConsumerTable({ dynamodb, table: "t", pipeline: "p", consumer: "c" }),
    );
    await parking.putDeadLetter(letter, signal);
    twice();
    await parking.applied(place, at(1), signal);
    await parking.applied(place, at(2), signal);
    await parking.failedAgain(place, failure, at(3), signal);
    await arrive();
    const found = (await parking.deadLetter(place, signal)) as StoredDeadLetter;
    expect(found).toMatchObject({ applied: at(2), attempts: 3 });
    expect(failedOf(found)).toEqual({ at: at(3) });
  });

  it("names none that failed once it took effect, or the next would be given up in its place", async () => {
    const { dynamodb, twice, arrive } = delayed();
    const parking = new ParkedChains(
      new ConsumerTable({ dynamodb, table: "t", pipeline: "p", consumer: "c" }),
    );
    await parking.putDeadLetter(letter, signal);
    twice();
    await parking.failedAgain(place, failure, at(1), signal);
    await parking.applied(place, at(1), signal);
    await arrive();
    expect(failedOf((await parking.deadLetter(place, signal)) as StoredDeadLetter)).toBeUndefined();
  });
});

describe("what is missing", () => {
  const range = { topic: TOPIC, partition: 0, behind: at(1), upTo: at(3) };
  const ended = (table: string) => ({ table, run: 4, startPosition: at(5), sweep: true });
  const tables = async (missing: MissingTable) =>
    (await missing.list(signal)).map(({ swept }: MissingChanges) => swept.toSorted());

  it("stays healed of each table whose backfill has ended, whatever arrives of the ones before", async () => {
    const { dynamodb, twice, arrive } = delayed();
    const missing = new MissingTable(
      new ConsumerTable({ dynamodb, table: "t", pipeline: "p", consumer: "c" }),
    );
    await missing.found({ ...range, cause: "gap", writer: 1 }, signal);
    const [seen] = await missing.list(signal);
    const accepted = { by: "me", at: "2026-01-01T00:00:00Z", tables: { a: 4, b: 4 } };
    await missing.accept(seen as MissingChanges, accepted, signal);
    const writes = dynamodb.send.bind(dynamodb);
    let calls = 0;
    dynamodb.send = ((command: never, options: never) => {
      // After it was read.
      if (calls++ === 1) twice();
      return writes(command, options);
    }) as typeof dynamodb.send;
    await missing.healedBy(range, ended("a"), signal);
    await missing.healedBy(range, ended("b"), signal);
    await arrive();
    expect(await tables(missing)).toEqual([["a", "b"]]);
  });

  it("is healed of both tables whose backfills end in two processes at once", async () => {
    const table = new MemoryTable();
    const both = Promise.withResolvers<void>();
    let reads = 0;
    const process = () => {
      const dynamodb = table.client(async (when, what) => {
        if (when === "after" && what === "query" && ++reads === 2) both.resolve();
        if (when === "after" && what === "query" && reads <= 2) await both.promise;
        return "none";
      });
      return new MissingTable(new ConsumerTable({ dynamodb, table: "t", pipeline: "p", consumer: "c" }));
    };
    const [first, second] = [process(), process()];
    await first.found({ ...range, cause: "gap", writer: 1 }, signal);
    await Promise.all([
      first.healedBy(range, ended("a"), signal),
      second.healedBy(range, ended("b"), signal),
    ]);
    expect(await tables(first)).toEqual([["a", "b"]]);
  });

  it("is not brought back, in part, by what arrives after it was forgotten", async () => {
    const { dynamodb, table } = delayed();
    const missing = new MissingTable(
      new ConsumerTable({ dynamodb, table: "t", pipeline: "p", consumer: "c" }),
    );
    const never = { ...range, cause: "gap", writer: 1, foundAt: "", accepted: undefined, swept: [] } as const;
    await missing.accept(never, { by: "me", at: "2026-01-01T00:00:00Z", tables: { a: 4 } }, signal);
    expect(table.items("missing#")).toEqual([]);
  });
});
