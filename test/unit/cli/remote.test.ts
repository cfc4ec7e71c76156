import { Command, Option } from "commander";
import { expect, it } from "vitest";
import { verbs } from "../../../docs/command-line-tables.ts";
import { remoteProgram } from "../../../lib/cli/operate-program.ts";
import { orRemote, remoteArguments } from "../../../lib/cli/remote.ts";

/** The words that a task gets of a command line. */
async function sent(...args: string[]): Promise<string[]> {
  let words: string[] = [];
  const start = new Command("start")
    .addOption(new Option("--stack <name>"))
    .addOption(new Option("--profile <name>"))
    .addOption(new Option("--pipeline <file>"))
    .addOption(new Option("--state-table <name>"))
    .addOption(new Option("--where <sql>"))
    .addOption(new Option("--limit <n>").argParser(Number).default(5))
    .addOption(new Option("--tables <list>").argParser((text: string) => text.split(",")))
    .addOption(new Option("--no-sweep"))
    .addOption(new Option("--yes"))
    .action((_: unknown, command: Command) => {
      words = remoteArguments(command);
    });
  const program = new Command("tributary").addCommand(new Command("backfill").addCommand(start));
  await program.parseAsync(["backfill", "start", ...args], { from: "user" });
  return words;
}

it("sends a task the verb's words and what was given, but for what chooses the place", async () => {
  expect(await sent()).toEqual(["backfill", "start"]);
  const place = ["--stack", "Shop", "--profile", "p", "--pipeline", "f.ts", "--state-table", "t"];
  expect(await sent(...place, "--where", "name = '--x y'", "--no-sweep", "--yes")).toEqual([
    ...["backfill", "start", "--where=name = '--x y'", "--no-sweep", "--yes"],
  ]);
  expect(await sent("--limit", "7", "--tables", "a,b")).toEqual([
    ...["backfill", "start", "--limit=7", "--tables=a", "--tables=b"],
  ]);
});

it("takes an option once more in the task as it was given here", async () => {
  const given = await sent("--where=-1 < id", "--limit=0");
  expect(await sent(...given.slice(2))).toEqual(given);
});

it("every verb with --remote is in the image's program, with the same options", () => {
  const flags = (command: Command) => command.options.map((option) => option.flags);
  const there = verbs(remoteProgram());
  const here = [...verbs()].filter(([, command]) => flags(command).includes("--remote"));
  expect(here.map(([words]) => words)).toEqual(
    expect.arrayContaining(["teardown", "epoch new", "backfill start", "plan", "doctor", "verify"]),
  );
  for (const [words, command] of here) {
    const theirs = there.get(words);
    expect(theirs, words).toBeDefined();
    const missing = flags(command).filter((flag) => !flags(theirs as Command).includes(flag));
    expect(missing, words).toEqual(["--stack <name>", "--profile <name>", "--region <name>"]);
  }
});

it("runs a verb here without --remote", async () => {
  let ran: object | undefined;
  const command = orRemote(new Command("teardown"), async (options) => {
    ran = options;
  });
  await new Command("tributary").addCommand(command).parseAsync(["teardown"], { from: "user" });
  expect(ran).toEqual({});
});
