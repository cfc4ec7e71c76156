import { expect, test } from "vitest";
import { pgTypeCatalog } from "../../lib/source/postgres/catalog/type-catalog.ts";
import { CatalogLookupError } from "../../lib/source/postgres/decode/decode-errors.ts";
import { recordedCatalog, recordedMessages, stillDecoder } from "./fixtures/hostile-stream.ts";

test("a look-up that gets no answer ends in a typed error: by its deadline, and by the signal", async () => {
  const silent = () => new Promise<never>(() => {});
  const late = pgTypeCatalog(silent, { deadlineMs: 20 });
  await expect(late.resolve([99_999])).rejects.toThrow(CatalogLookupError);
  await expect(late.relation(99_999)).rejects.toMatchObject({ code: "CATALOG_LOOKUP", retry: "retry" });
  const stop = new AbortController();
  const waiting = pgTypeCatalog(silent, { signal: stop.signal }).relation(1);
  stop.abort(new Error("shutting down"));
  await expect(waiting).rejects.toMatchObject({
    code: "CATALOG_LOOKUP",
    cause: { message: "shutting down" },
  });
});

test("an answer of another form is refused", async () => {
  const odd = pgTypeCatalog(async () => ({ rows: [{ oid: 5 }] }));
  await expect(odd.resolve([5])).rejects.toThrow(CatalogLookupError);
});

test("a catalog that fails is a rejection of decode; tables of built-in types never ask it", async () => {
  const failing = {
    resolve: () => Promise.reject(new CatalogLookupError({ what: "data types" })),
    relation: () => Promise.reject(new CatalogLookupError({ what: "a table" })),
  };
  const asked: string[] = [];
  for (const { payload, lsn } of recordedMessages().filter((m) => m.payload[0] === 0x52)) {
    const decoder = stillDecoder(failing);
    const wait = decoder.decode(payload, lsn, []);
    const known = stillDecoder(recordedCatalog()).decode(payload, lsn, []);
    expect(wait === undefined).toBe(known === undefined);
    await known;
    if (wait) await expect(wait).rejects.toThrow(CatalogLookupError);
    asked.push(wait ? "asks" : "knows");
  }
  expect(new Set(asked)).toEqual(new Set(["asks", "knows"]));
});
