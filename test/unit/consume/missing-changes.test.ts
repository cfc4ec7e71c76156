import { describe, expect, it } from "vitest";
import { ConsumerTable } from "../../../lib/consume/fence/consumer-table.ts";
import { isHealed, MissingTable } from "../../../lib/consume/run/missing-changes.ts";
import { MemoryTable } from "./memory-table.ts";
import { at, TOPIC } from "./records.ts";

const { signal } = new AbortController();
const PLACE = { topic: TOPIC, partition: 0 };

describe("missing changes that are accepted", () => {
  it("are healed by a backfill whose end passes while they are being accepted", async () => {
    const missing = new MissingTable(
      new ConsumerTable({
        dynamodb: new MemoryTable().client(async () => "none"),
        table: "t",
        pipeline: "p",
        consumer: "c",
      }),
    );
    await missing.found({ ...PLACE, cause: "gap", behind: at(1), upTo: at(3), writer: 1 }, signal);
    const [seen] = await missing.list(signal);
    if (!seen) throw new Error("nothing was noted");
    const end = { table: "public.orders", run: 4, startPosition: at(5), sweep: true };
    await missing.healedBy(PLACE, end, signal);
    const accepted = { by: "me", at: "2026-01-01T00:00:00Z", tables: { "public.orders": 4 } };
    await missing.accept(seen, accepted, signal);
    expect((await missing.list(signal)).map(isHealed)).toEqual([true]);
  });
});
