import { afterEach, describe, expect, test, vi } from "vitest";
import { nearCodes } from "../../../lib/cli/explain.ts";
import { makeProgram } from "../../../lib/cli/program.ts";
import { allEntries, CATALOGUE, entriesOf } from "../../../lib/explain/catalogue.ts";

afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
});

async function explained(...args: readonly string[]): Promise<string> {
  const written: string[] = [];
  vi.spyOn(process.stdout, "write").mockImplementation((text) => written.push(String(text)) > 0);
  await makeProgram().parseAsync(["explain", ...args], { from: "user" });
  return written.join("");
}

describe("tributary explain", () => {
  test("says what happened, why, what to do and what happens else, in upper or lower case", async () => {
    const text = await explained("slot_lost");
    expect(text).toBe(await explained("SLOT_LOST"));
    const rows = text.split("\n").map((line) => line.split(":")[0]);
    expect(rows.slice(0, 7)).toEqual([
      "SLOT_LOST (error, stop)",
      "What happened",
      "Why",
      "What to do",
      "If nothing is done",
      "By itself",
      "Docs",
    ]);
    expect(text).toMatch(/What to do: .*npm run -s tributary -- epoch new --drop-slot\n/);
  });

  test("explains several at once, and both that one word stands for", async () => {
    const heads = async (...codes: string[]) =>
      (await explained(...codes)).split("\n").filter((line) => /^\S+ \((error|finding|alarm)/.test(line));
    expect(await heads("wal_level", "select")).toEqual(["WAL_LEVEL (finding)", "SELECT (finding)"]);
    expect(await heads("gap")).toEqual(["GAP (error, retry)", "Gap (alarm)"]);
    expect(await heads("OUTBOX_TABLE")).toEqual(["OUTBOX_TABLE (error, stop)", "OUTBOX_TABLE (finding)"]);
  });

  test("takes an alarm by the name that it has in CloudWatch", () => {
    for (const name of [
      "Shop/shop: HeldPartitions-order-summary",
      "HeldPartitions-order-summary",
      "heldpartitions",
    ])
      expect(entriesOf(name).map(({ code }) => code)).toEqual(["HeldPartitions"]);
    expect(entriesOf("Shop/shop: SlotInactive-slot2").map(({ code }) => code)).toEqual(["SlotInactive"]);
  });

  test("lists all in groups without a code", async () => {
    const lines = (await explained()).split("\n");
    for (const { title } of CATALOGUE) expect(lines).toContain(title);
    for (const { code } of allEntries())
      expect(lines.some((line) => line.startsWith(`  ${code} `))).toBe(true);
  });

  test("prints JSON and nothing else: all, or those that are asked for, with commands as they are typed", async () => {
    expect(JSON.parse(await explained("--json"))).toHaveLength(allEntries().length);
    vi.stubEnv("TRIBUTARY_STACK_NAME", "Shop");
    const [entry] = JSON.parse(await explained("SLOT_MISSING", "--json"));
    expect(entry).toMatchObject({ code: "SLOT_MISSING", kind: "error", retry: "stop" });
    expect(entry.remedy).toMatch(/^npx tributary-cdc epoch new --stack Shop shows/);
  });

  test("refuses a code that there is not, with near ones, before it prints anything", async () => {
    await expect(explained("SLOT_LOST", "SLOT_LOSST")).rejects.toMatchObject({
      code: "CONFIGURATION",
      problems: [
        { path: "code", value: "SLOT_LOSST", remedy: expect.stringMatching(/^did you mean SLOT_LOST/) },
      ],
    });
    expect(nearCodes("walbudge")).toEqual(["WalBudget"]);
    expect(nearCodes("replica_ident")).toContain("REPLICA_IDENTITY");
    expect(nearCodes("qqqqqqqqqqqqqq")).toEqual([]);
    expect(nearCodes("")).toEqual([]);
  });
});
