import { afterEach, expect, it, vi } from "vitest";
import { commandDatabase } from "../../../lib/cli/database.ts";

const URL = "postgres://me:secret@db.example.com:5433/shop";
const told: string[] = [];
vi.spyOn(process.stderr, "write").mockImplementation((text) => {
  told.push(String(text));
  return true;
});
afterEach(() => {
  told.length = 0;
});

it("says beside a stack which database is meant, without its password", async () => {
  const stack = { TRIBUTARY_STACK: "Shop" };
  for (const [url, environment] of [
    [URL, stack],
    [undefined, { ...stack, DATABASE_URL: URL }],
  ] as const) {
    expect(await commandDatabase(url, environment)).toMatchObject({ host: "db.example.com", port: 5433 });
    expect(told.splice(0).join("")).toMatch(/the database is db\.example\.com:5433\/shop: .*stack Shop\n$/);
  }
  await commandDatabase(URL, {});
  expect(told).toEqual([]);
});

it("leads to --remote where a stack is named and no database is", async () => {
  await expect(commandDatabase(undefined, { TRIBUTARY_STACK: "Shop" })).rejects.toThrow(
    /--remote: add --remote to run in the network of the stack Shop, or name the database with --database-url/,
  );
});
