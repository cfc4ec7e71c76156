import { describe, expect, test } from "vitest";
import { verbs } from "../../../docs/command-line-tables.ts";
import { commandPlace } from "../../../lib/change/command-place.ts";
import { withCommands } from "../../../lib/change/printed-command.ts";

const npx = { program: "npx tributary-cdc" };
const deployed = { ...npx, stack: "Shop" };
const SOURCE = "file:///home/me/tributary/lib/change/printed-command.ts";
const INSTALLED = "file:///home/me/shop/node_modules/tributary-cdc/lib/change/printed-command.js";

describe("a command in a text", () => {
  test.each([
    ["See: tributary capture status", "See: npx tributary-cdc capture status --stack Shop"],
    ["`tributary backfill start --table a`.", "`npx tributary-cdc backfill start --stack Shop --table a`."],
    ["tributary redrive, then", "npx tributary-cdc redrive --stack Shop, then"],
    ["tributary explain GAP", "npx tributary-cdc explain GAP"],
    ["tributary dev --fresh", "npx tributary-cdc dev --fresh"],
  ])("is typed by the package's name, with its stack where it speaks to one: %s", (text, typed) => {
    expect(withCommands(text, deployed)).toBe(typed);
  });

  test("stays as it is where it was typed so already", () => {
    const text = "tributary epoch new --drop-slot, tributary teardown, tributary explain X";
    for (const place of [npx, deployed, { program: "npm run -s tributary --" }])
      expect(withCommands(withCommands(text, place), place)).toBe(withCommands(text, place));
  });

  test.each([
    "tributary: a note",
    "a tributary of it",
    "tributary-cdc redrive",
    "/bin/tributary redrive",
    "Tributary dev",
  ])("is none: %s", (text) => {
    expect(withCommands(text, deployed)).toBe(text);
  });

  test("is known for each verb that there is", () => {
    const unknown = [...verbs().keys()].filter(
      (verb) => withCommands(`tributary ${verb}`, npx) !== `npx tributary-cdc ${verb}`,
    );
    expect(unknown).toEqual([]);
  });

  test("has --stack for each verb that has that option, and for no other", () => {
    const options = [...verbs()].map(
      ([verb, command]) => [verb, command.options.some(({ long }) => long === "--stack")] as const,
    );
    expect(options.filter(([, has]) => has).length).toBeGreaterThan(15);
    const named = options.map(
      ([verb]) => [verb, withCommands(`tributary ${verb}`, deployed).endsWith(" --stack Shop")] as const,
    );
    expect(named).toEqual(options);
  });
});

describe("where a text is printed", () => {
  test("a clone runs the script, an installed package goes by its own name, on AWS with its stack", () => {
    expect(commandPlace({}, SOURCE)).toEqual({ program: "npm run -s tributary --", stack: undefined });
    expect(commandPlace({ TRIBUTARY_STACK: "Shop" }, SOURCE)).toEqual({
      program: "npm run -s tributary --",
      stack: "Shop",
    });
    expect(commandPlace({}, INSTALLED)).toEqual({ program: "npx tributary-cdc", stack: undefined });
    const stack = { TRIBUTARY_STACK_NAME: "Shop" };
    for (const file of [SOURCE, INSTALLED, "file:///var/task/main.mjs"])
      expect(commandPlace(stack, file)).toEqual(deployed);
  });
});
