import { describe, expect, test } from "vitest";
import { ConfigurationError } from "../../../lib/change/tributary-error.ts";
import { definePipeline, type PipelineInput, postgres, triggers } from "../../../lib/definition/pipeline.ts";
import { sourceKind } from "../../../lib/source/index.ts";
import { pipelineOfSlot, slotNames, wantedSlot } from "../../../lib/source/postgres/slots/assignment.ts";
import { slotFromEnvironment } from "../../../lib/source/postgres/slots/slot-number.ts";

function shop(source: Partial<Parameters<typeof postgres>[0]>, more: Partial<PipelineInput> = {}) {
  return definePipeline({ name: "shop", ...more, source: postgres({ tables: ["public.*"], ...source }) });
}

const tables = Array.from({ length: 400 }, (_, i) => ({ schema: "public", table: `t${i}` }));

/** What is wrong with a definition: path and remedy. */
function refusal(define: () => unknown): string {
  try {
    define();
  } catch (error) {
    if (error instanceof ConfigurationError)
      return error.problems.map(({ path, remedy }) => `${path}: ${remedy}`).join("; ");
    throw error;
  }
  return "none";
}

describe("the slot of a table", () => {
  test("one slot more takes its share from the others, and nothing moves between those", () => {
    for (let slots = 1; slots < 6; slots++) {
      const [before, after] = [shop({ slots }), shop({ slots: slots + 1 })];
      const moved = tables.filter((table) => wantedSlot(before, table) !== wantedSlot(after, table));
      expect(moved.map((table) => wantedSlot(after, table))).toEqual(moved.map(() => slots + 1));
      const share = tables.length / (slots + 1);
      expect(moved.length).toBeGreaterThan(share / 2);
      expect(moved.length).toBeLessThan(share * 2);
    }
  });

  test("tables that share a topic share a slot", () => {
    const routed = shop(
      { slots: 5 },
      { topics: { routes: [{ match: "^public\\.t\\d+$", to: "public.t" }] } },
    );
    expect(new Set(tables.map((table) => wantedSlot(routed, table))).size).toBe(1);
  });

  test("the outbox, and what could share topics with its events, is the first slot's; so are messages", () => {
    const source = { slots: 8, outbox: { table: "app.events" }, messages: ["app"] };
    const pipeline = shop(source);
    expect(wantedSlot(pipeline, { schema: "app", table: "events" })).toBe(1);
    for (const { table } of tables) expect(wantedSlot(pipeline, { schema: "outbox", table })).toBe(1);
    expect(pipelineOfSlot(pipeline, 1).source).toMatchObject({ outbox: source.outbox, messages: ["app"] });
    expect(pipelineOfSlot(pipeline, 2).source).toMatchObject({ outbox: undefined, messages: [] });
    // What the log still holds of a table that has moved away is given: all patterns stay.
    expect(pipelineOfSlot(pipeline, 2).source.tables).toEqual(pipeline.source.tables);
  });

  test("the first slot has the definition's names", () => {
    const { source } = shop({ slots: 2, publication: "Pub" });
    expect(slotNames(source, 1)).toEqual({ slot: "tributary_shop", publication: "Pub" });
    expect(slotNames(source, 2)).toEqual({ slot: "tributary_shop_slot2", publication: "Pub_slot2" });
  });
});

describe("a definition of slots", () => {
  test.each([0, 17, 1.5, "2"])("%j slots are refused", (slots) => {
    expect(refusal(() => shop({ slots: slots as number }))).toMatch(/^source\.slots: /);
  });

  test("names that leave no room for the further slots' are refused", () => {
    const slot = "s".repeat(63);
    expect(shop({ slot }).source.slot).toBe(slot);
    expect(refusal(() => shop({ slot, slots: 2 }))).toMatch(/^source\.slot: write at most 57 bytes/);
    expect(refusal(() => shop({ publication: slot, slots: 10 }))).toMatch(
      /^source\.publication: .* 56 bytes/,
    );
  });

  test("an outbox whose events routes could send to another slot's topic is refused", () => {
    const topics = { routes: [{ match: "^outbox\\.(.*)$", to: "$1" }] };
    const outbox = { table: "app.events" };
    expect(refusal(() => shop({ outbox }, { topics }))).toBe("none");
    expect(refusal(() => shop({ outbox, slots: 2 }, { topics }))).toMatch(/^source\.slots: leave it at 1/);
  });

  test("another kind of source has none", () => {
    const input = { ...triggers({ tables: ["public.*"] }), slots: 2 } as PipelineInput["source"];
    expect(refusal(() => definePipeline({ name: "shop", source: input }))).toMatch(
      /^source\.slots: no such field/,
    );
  });

  test("a task's slot is one of them", () => {
    const { source } = shop({ slots: 2 });
    const slots = sourceKind(source).tasks(source).length;
    expect(slotFromEnvironment({}, slots)).toBe(1);
    expect(slotFromEnvironment({ TRIBUTARY_SLOT: "2" }, slots)).toBe(2);
    for (const TRIBUTARY_SLOT of ["0", "3", "x", ""])
      expect(() => slotFromEnvironment({ TRIBUTARY_SLOT }, slots)).toThrow(/TRIBUTARY_SLOT: write a number/);
  });
});
