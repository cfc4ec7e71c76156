import { expect, test } from "vitest";
import { codeOfFiles, commandsIn, printedCommands } from "./printed-commands.ts";

test("every command that an error, an alarm, a help text or a page names is one that the program takes", async () => {
  const found = await printedCommands();
  expect(found.length).toBeGreaterThan(200);
  expect(new Set(found.map(({ text }) => text.split(" ").slice(0, 2).join(" "))).size).toBeGreaterThan(15);
  const wrong = found.flatMap(({ file, text, fault }) =>
    fault ? [`${file}: tributary ${text}: ${fault}`] : [],
  );
  expect(wrong).toEqual([]);
});

test.each([
  ["run: tributary backfill start --table a", undefined],
  // biome-ignore lint/suspicious/noTemplateCurlyInString: code that is looked at
  ["run `tributary consumer accept-gap --consumer ${c} --topic '${t}' --partition ${p}`, which", undefined],
  ["tributary redrive finds it", undefined],
  ["tributary epoch new (shows it)", undefined],
  ["tributary consumer status | accept-gap", undefined],
  ["tributary explain GAP, or", undefined],
  ["tributary backfil start", "unknown verb backfil"],
  ["tributary backfill begin --table a", "unknown verb begin"],
  ["tributary redrive --consumer a --all", "unknown option --all"],
  ["run `tributary redrive`", "without --consumer"],
  ["run `npx tributary-cdc backfill cancel`.", "without --table"],
  ["run npm run -s tributary -- capture dead-letter --at", "--at has no value"],
  ["see tributary backfill.", "a verb is missing"],
])("a text's command is parsed as the program does: %s", (text, fault) => {
  expect(commandsIn(text, true).map((one) => one.fault)).toEqual([fault]);
});

test("no text of a program leads to a file of our repository", async () => {
  const found = (await codeOfFiles()).flatMap(({ file, code }) =>
    [...code.matchAll(/(?<!postgresql\.org\/)\bdocs\/\d\d-[\w.-]+/g)].map(([path]) => `${file}: ${path}`),
  );
  // The example's own stack is of the repository.
  expect(found.filter((text) => !text.startsWith("cdk/shop-stack.ts"))).toEqual([]);
});
