/*
 * Writes the tables of options into 16-command-line.md, between the comments that name the verbs:
 *
 *   npx node docs/command-line-tables.ts
 */
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Command, Option } from "commander";
import { makeProgram } from "../lib/cli/program.ts";

const PAGE = fileURLToPath(new URL("16-command-line.md", import.meta.url));

if (import.meta.main) writeFileSync(PAGE, withOptions(readFileSync(PAGE, "utf8")));

/** Every verb that does something, by its words: `backfill start`. */
export function verbs(program: Command = makeProgram()): ReadonlyMap<string, Command> {
  const found = new Map<string, Command>();
  const visit = (command: Command, words: readonly string[]) => {
    if (command.commands.length === 0) found.set(words.join(" "), command);
    for (const child of command.commands) visit(child, [...words, child.name()]);
  };
  for (const command of program.commands) visit(command, [command.name()]);
  return found;
}

/**
 * Gives the page with its tables as they should be.
 * @throws Error where it has no place for one.
 */
export function withOptions(page: string): string {
  return [...verbs()].reduce((text, [verb, command]) => {
    const [before, rest] = cut(text, `<!-- options of ${verb} -->\n`);
    const [, after] = cut(rest, `<!-- end of ${verb} -->\n`);
    return `${before}<!-- options of ${verb} -->\n${table(command)}<!-- end of ${verb} -->\n${after}`;
  }, page);
}

function cut(text: string, at: string): readonly [before: string, after: string] {
  const parts = text.split(at);
  if (parts.length !== 2)
    throw new Error(`docs/16-command-line.md has ${parts.length - 1} times, and must have once: ${at}`);
  return parts as [string, string];
}

function table(command: Command): string {
  const rows = command.options.filter(({ hidden }) => !hidden).map(row);
  return rows.length === 0 ? "No options.\n" : `| option | meaning |\n|---|---|\n${rows.join("")}`;
}

function row(option: Option): string {
  const { flags, description, mandatory, defaultValue, argChoices, negate } = option;
  const notes = [
    mandatory ? ["required"] : [],
    argChoices ? [`one of ${argChoices.join(", ")}`] : [],
    defaultValue === undefined || defaultValue === false || negate ? [] : [`default: ${defaultValue}`],
  ].flat();
  const text = notes.length > 0 ? `${description} (${notes.join("; ")})` : description;
  return `| \`${flags}\` | ${text.replaceAll(/[|*<]/g, "\\$&")} |\n`;
}
