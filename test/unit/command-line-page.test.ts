import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { verbs, withOptions } from "../../docs/command-line-tables.ts";

const page = readFileSync(new URL("../../docs/16-command-line.md", import.meta.url), "utf8");
const examples = [...page.matchAll(/^```\n(.*?)^```$/gms)].flatMap(([, block = ""]) =>
  block.split("\n").filter((line) => line.startsWith("tributary ")),
);

test("docs/16 has the options of every verb as the command has them: npx node docs/command-line-tables.ts", () => {
  expect(withOptions(page)).toBe(page);
});

test("docs/16 begins each verb with an example", () => {
  const sections = page.split(/^## /m).slice(1);
  const missing = sections.filter((section) => !/^[\w-]+\n\n```\ntributary /.test(section));
  expect(missing).toEqual([]);
  for (const verb of verbs().keys())
    expect(
      sections.some((section) => section.startsWith(`${verb.split(" ")[0]}\n`)),
      verb,
    ).toBe(true);
});

test("docs/16 shows verbs and options that there are", () => {
  expect(examples.length).toBeGreaterThan(15);
  for (const example of examples) {
    const command = [...verbs()].find(([verb]) => example.startsWith(`tributary ${verb}`))?.[1];
    const known = command?.options.filter(({ hidden }) => !hidden).map(({ long }) => long);
    const used = [...example.matchAll(/ (--[a-z-]+)/g)].map(([, option]) => option);
    expect(known, example).toEqual(expect.arrayContaining(used));
  }
});

test("an option has one wording in all verbs, and every verb that names a database takes it from DATABASE_URL", () => {
  const program = verbs();
  const all = [...program.values()].flatMap(({ options }) => options);
  const wordings = (long: string) =>
    new Set(
      all.filter((option) => option.long === long).map(({ flags, description }) => `${flags} ${description}`),
    );
  for (const long of ["--pipeline", "--state-table", "--confirm"])
    expect([...wordings(long)], long).toHaveLength(1);
  // Those of cost are figures of a load.
  const cost = program.get("cost")?.options ?? [];
  const flags = Map.groupBy(
    all.filter((option) => !cost.includes(option)),
    ({ long }) => long,
  );
  for (const [long, options] of flags)
    expect([...new Set(options.map((option) => option.flags))], long ?? "").toHaveLength(1);
  for (const wording of wordings("--database-url")) expect(wording).toContain("$DATABASE_URL");
  for (const wording of wordings("--json")) expect(wording).toMatch(/JSON/);
});
