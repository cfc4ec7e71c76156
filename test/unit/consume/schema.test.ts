import { describe, expect, it } from "vitest";
import * as z from "zod";
import type { ChangeEventJson } from "../../../lib/change/event.ts";
import { consumer } from "../../../lib/consume/api/consumer.ts";
import { RowSchemaError } from "../../../lib/consume/api/handler-errors.ts";
import { Operation } from "../../../lib/consume/api/operation.ts";
import { type RowSchema, rowsOf, validateRows } from "../../../lib/consume/api/schema.ts";
import { type Change, eventJson } from "./records.ts";

const wire = (change: Partial<Change>): ChangeEventJson =>
  JSON.parse(eventJson({ at: 1, after: null, ...change }));
const order = z.object({
  id: z.coerce.bigint(),
  status: z.string().default("new"),
  note: z.string().default("none"),
});

describe("a row schema", () => {
  it("gives types, and defaults for columns that older events lack", async () => {
    const rows = await validateRows(order, wire({ row: { id: "5" } }));
    expect(rows).toEqual({ before: null, after: { id: 5n, status: "new", note: "none" } });
  });

  it("that looks at nothing gives the rows as they travelled, typed", async () => {
    const { row } = rowsOf<{ readonly id: string; readonly note?: string }>();
    const rows = await validateRows(
      row,
      wire({ op: "u", row: { id: "5", status: "paid" }, unchanged: ["note"] }),
    );
    expect(rows.after).toEqual({ id: "5", status: "paid" });
    const typed = consumer("orders").on("public.orders", Operation.Create, { row }, ({ after }) =>
      after.id.toUpperCase(),
    );
    // @ts-expect-error: a column that the type lacks
    typed.on("public.orders", Operation.Create, { row }, ({ after }) => after.status);
  });

  it("never lets a default stand for a value that did not travel", async () => {
    const rows = await validateRows(
      order,
      wire({ op: "u", row: { id: "5", status: "paid" }, unchanged: ["note"] }),
    );
    expect(rows.after).toEqual({ id: 5n, status: "paid" });
  });

  it("applies to the old row of an update where it is whole", async () => {
    const row = { id: "5", status: "paid", note: "x" };
    const whole = await validateRows(order, wire({ op: "u", row, before: { ...row, status: "new" } }));
    expect(whole.before).toEqual({ id: 5n, status: "new", note: "x" });
    expect((await validateRows(order, wire({ op: "u", row, before: { id: "5" } }))).before).toBeNull();
  });

  it("does not apply to deletes, which may hold the key alone", async () => {
    expect(await validateRows(order, wire({ op: "d", row: { id: "5" } }))).toEqual({
      before: { id: "5" },
      after: null,
    });
  });

  it("names columns, never values", async () => {
    const strict = z.object({ id: z.literal("secret"), note: z.string() });
    const change = wire({ op: "u", row: { id: "hidden" }, unchanged: ["note"] });
    const error = await refusal(() => validateRows(strict, change));
    expect(error).toBeInstanceOf(RowSchemaError);
    const { message } = error as RowSchemaError;
    expect(message).toContain("public.orders");
    expect(message).toContain("id, note");
    expect(message).toContain("did not travel, being unchanged: note");
    expect(message).not.toMatch(/secret|hidden/);
  });

  it("may answer later, with the same", async () => {
    const { validate } = order["~standard"];
    const asynchronous: RowSchema<unknown> = {
      "~standard": { version: 1, vendor: "test", validate: async (value) => validate(value) },
    };
    const row = { id: "5", status: "paid", note: "x" };
    const update = wire({ op: "u", row, before: { ...row, status: "new" } });
    const given = validateRows(asynchronous, update);
    expect(given).toBeInstanceOf(Promise);
    expect(await given).toEqual(await validateRows(order, update));
    const bad = wire({ op: "u", row: { id: "x" }, before: { id: "x", status: "y" } });
    expect(await refusal(() => validateRows(asynchronous, bad))).toBeInstanceOf(RowSchemaError);
  });
});

async function refusal(call: () => unknown): Promise<unknown> {
  try {
    await call();
  } catch (error) {
    return error;
  }
  throw new Error("not refused");
}
