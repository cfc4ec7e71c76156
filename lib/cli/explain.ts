import { Command } from "commander";
import { commandPlace } from "../change/command-place.ts";
import { withCommands } from "../change/printed-command.ts";
import { ConfigurationError } from "../change/tributary-error.ts";
import { editDistance, nearNames } from "../definition/edit-distance.ts";
import { allEntries, CATALOGUE, entriesOf } from "../explain/catalogue.ts";
import type { Entry } from "../explain/entry.ts";
import { jsonOption } from "./options.ts";
import { say } from "./say.ts";

/** What a directive means, as docs/08 has it. */
const DIRECTIVE: Readonly<Record<string, string>> = {
  retry: "it is tried again by itself, with backoff; a consumer's batch comes again",
  restart: "the capture task ends with exit code 1, and its host starts it again",
  stop: "starting again would fail the same way: the capture task ends with exit code 2, a partition waits or the change becomes a dead letter",
  "retry or stop": "the error itself says which: tried again by itself, or an operator must act first",
};

/** `tributary explain`: what stands behind a code of an error, a finding or an alarm. It asks nobody. */
export function explainCommand(): Command {
  return new Command("explain")
    .description("say what a code of an error, a preflight problem or an alarm means, and what to do")
    .argument("[codes...]", "codes as they are printed, in upper or lower case; none lists them all")
    .addOption(jsonOption("an array of {code, kind, retry, meaning, why, remedy, ifNothing, page}"))
    .addHelpText(
      "after",
      `
  tributary explain SLOT_LOST
  tributary explain wal_level select
  tributary explain WalBudget`,
    )
    .action(act);
}

function act(codes: readonly string[], { json = false }: { readonly json?: boolean }): void {
  const unknown = codes.filter((code) => entriesOf(code).length === 0);
  if (unknown.length > 0) {
    throw new ConfigurationError(
      "The command line",
      unknown.map((code) => ({ path: "code", value: code, remedy: hintFor(code) })),
    );
  }
  const entries = [...new Set(codes.flatMap(entriesOf))];
  if (json) say(JSON.stringify((codes.length === 0 ? allEntries() : entries).map(plainEntry), undefined, 2));
  else if (codes.length === 0) say(...list());
  else say(entries.map((entry) => explained(entry).join("\n")).join("\n\n"));
}

/** Every code with its meaning, in groups. */
function list(): string[] {
  const width = Math.max(...allEntries().map(({ code }) => code.length));
  const lines = CATALOGUE.flatMap(({ title, entries }) => [
    title,
    ...entries.map(({ code, meaning }) => `  ${code.padEnd(width)}  ${plain(meaning)}`),
    "",
  ]);
  return [...lines, runnable("Of one of them: tributary explain <code>")];
}

function explained(entry: Entry): string[] {
  const { code, kind, retry, meaning, why, remedy, ifNothing, page } = plainEntry(entry);
  const row = (label: string, text: string | undefined) => (text ? [`${`${label}:`.padEnd(22)}${text}`] : []);
  return [
    `${code} (${kind}${retry ? `, ${retry}` : ""})`,
    ...row("What happened", meaning),
    ...row("Why", why),
    ...row("What to do", remedy),
    ...row("If nothing is done", ifNothing),
    ...row("By itself", retry && `${retry}: ${DIRECTIVE[retry]}`),
    ...row("Docs", page),
  ];
}

/** The entry in words for a terminal: sentences, without Markdown, and commands as they are typed here. */
function plainEntry(entry: Entry): Entry {
  const { meaning, why, remedy, ifNothing } = entry;
  return {
    ...entry,
    meaning: sentence(meaning),
    ...(why === undefined ? {} : { why: sentence(why) }),
    remedy: runnable(sentence(remedy)),
    ifNothing: sentence(ifNothing),
  };
}

function sentence(markdown: string): string {
  const text = plain(markdown);
  const start =
    /^[a-z]+[ ,]/.test(text) && !text.startsWith("tributary ")
      ? text[0]?.toUpperCase() + text.slice(1)
      : text;
  // No full stop behind what is typed.
  return /[.;:!?]$/.test(start) || /`[^`]+`$/.test(markdown) ? start : `${start}.`;
}

function plain(markdown: string): string {
  return markdown.replaceAll(/\[([^\]]+)\]\([^)]+\)/g, "$1").replaceAll("`", "");
}

function runnable(text: string): string {
  return withCommands(text, commandPlace());
}

function hintFor(code: string): string {
  const near = nearCodes(code);
  const which = near.length > 0 ? `did you mean ${near.join(", ")}?` : "it is no code of this version;";
  return `${which} ${runnable("tributary explain")} lists them all`;
}

/** Codes that one that is not known was probably meant to be, nearest first. */
export function nearCodes(code: string, most = 4): readonly string[] {
  const codes = [...new Set(allEntries().map((entry) => entry.code))].toSorted((a, b) => a.length - b.length);
  return nearNames(code.trim(), codes, most, (text, its) => {
    const holds = text.length > 2 && (its.includes(text) || text.includes(its));
    return holds ? 1 : editDistance(text, its);
  });
}
