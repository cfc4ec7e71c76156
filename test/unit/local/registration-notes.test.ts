import { describe, expect, it } from "vitest";
import { parseTable } from "../../../lib/change/table-pattern.ts";
import { editDistance } from "../../../lib/definition/edit-distance.ts";
import { definePipeline, outbox, postgres } from "../../../lib/definition/pipeline.ts";
import { registrationNotes } from "../../../lib/local/registration-notes.ts";
import { suggestion } from "../../../lib/local/suggestion.ts";

const TABLES = ["sales.orders", "sales.order_items", 'public."Odd.Name"', "public.customers"];

/** The notes about one consumer of these topics, whose handlers have these patterns. */
function notes(
  topics: string[],
  patterns: string[] | undefined,
  {
    source = postgres({ tables: ["*.*"] }),
    tables = TABLES,
  }: { source?: ReturnType<typeof postgres> | ReturnType<typeof outbox>; tables?: string[] } = {},
): string[] {
  const definition = definePipeline({
    name: "shop",
    source,
    consumers: [{ name: "orders", entry: "functions/orders.ts", topics }],
  });
  const registered = { consumer: "orders", patterns };
  return registrationNotes(definition, tables.map(parseTable), [{ name: "orders", registered }]);
}
const WHO = "consumer orders, functions/orders.ts";

describe("patterns of handlers", () => {
  it.each([
    ["sales.ordrs", "sales.orders"],
    ["sales.odrers", "sales.orders"],
    ["Sales.Orders", "sales.orders"],
    ["shop.sales.order", "shop.sales.orders"],
    ["*.sales.ordrs", "*.sales.orders"],
    ["sale.*", "sales.*"],
    ["public.orders", "sales.orders"],
    ["orders", "sales.orders"],
    ["public.Odd.Name", 'public."Odd.Name"'],
  ])("%s, which no captured table matches, is named with what it was meant to be", (pattern, meant) => {
    expect(notes(["*"], [pattern])).toEqual([
      `${WHO}: no captured table matches "${pattern}"; did you mean "${meant}"?`,
    ]);
  });

  it("are named without a suggestion where nothing is near", () => {
    expect(notes(["*"], ["billing.invoices"])).toEqual([
      `${WHO}: no captured table matches "billing.invoices"`,
    ]);
  });

  it("that match a table, a topic or a message are not named", () => {
    const fine = ["sales.orders", "shop.sales.*", "*", "*.customers", 'public."Odd.Name"'];
    expect(notes(["*"], [...fine, "*.$messages", "shop.$outbox-malformed"])).toEqual([]);
    // The events of applications: a handler may be written for both.
    expect(notes(["*"], ["sales.orders", "outbox.order", "*.outbox.order"])).toEqual([]);
  });

  it("of tables whose topic the consumer does not read are named with the topic", () => {
    expect(notes(["shop.sales.*"], ["sales.orders", "public.customers"])).toContain(
      `${WHO}: "public.customers" is captured, but its topic "shop.public.customers" is none of the consumer's topics in the definition`,
    );
  });

  it("are not known of a handler behind a wrapper, or of an earlier version", () => {
    expect(notes(["*"], undefined)).toEqual([]);
  });
});

describe("topics of the definition", () => {
  it("that no captured table has are named", () => {
    expect(notes(["*.sales.ordrs", "shop.public.*", "shop.sales.*"], [])).toEqual([
      'consumer orders, topics in the definition: no captured table matches "*.sales.ordrs"; did you mean "*.sales.orders"?',
    ]);
  });

  it("leave tables over: those are named, a few of many", () => {
    expect(notes(["shop.sales.*"], [])).toEqual([
      'no consumer takes the changes of public."Odd.Name", public.customers',
    ]);
    const tables = Array.from({ length: 9 }, (_, n) => `public.t${n}`);
    expect(notes(["shop.public.t0"], [], { tables })).toEqual([
      "no consumer takes the changes of public.t1, public.t2, public.t3, public.t4, public.t5 and 3 more",
    ]);
  });

  it("of events that applications publish are theirs to know", () => {
    expect(
      notes(["*.orders"], ["ordrs"], { source: outbox({ table: "public.outbox" }), tables: [] }),
    ).toEqual([]);
    const log = postgres({ tables: ["*.*"], outbox: { table: "public.tributary_outbox" } });
    const all = ["shop.*", "*.order-shipped"];
    expect(
      notes(all, ["order-shipped"], { source: log, tables: [...TABLES, "public.tributary_outbox"] }),
    ).toEqual([]);
    expect(notes(["*"], ["sales.ordrs"], { source: log })).toHaveLength(1);
  });
});

describe("a suggestion", () => {
  it("counts letters to add, leave out, replace or swap", () => {
    const pairs = [
      ["", "abc", 3],
      ["abc", "abc", 0],
      ["abc", "acb", 1],
      ["kitten", "sitting", 3],
      ["ca", "abc", 3],
    ] as const;
    for (const [a, b, distance] of pairs) {
      expect([a, b, editDistance(a, b)]).toEqual([a, b, distance]);
      expect([b, a, editDistance(b, a)]).toEqual([b, a, distance]);
    }
  });

  it("is the nearest, and none where all are far", () => {
    expect(suggestion("public.ordrs", ["public.ordrsx", "public.xordrsx", "public.users"])).toBe(
      "public.ordrsx",
    );
    expect(suggestion("public.a", ["public.bcd", "sales.a"])).toBeUndefined();
    expect(suggestion("ab", ["cd"])).toBeUndefined();
  });
});
