/*
 * Writes the tables of errors and findings into 08-errors.md, between the comments that name their sections. The texts are those of
 * `tributary explain` (lib/explain):
 *
 *   npx node docs/error-tables.ts
 */
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { ERROR_SECTIONS, FINDING_SECTIONS } from "../lib/explain/catalogue.ts";
import type { Section } from "../lib/explain/entry.ts";

const PAGE = fileURLToPath(new URL("08-errors.md", import.meta.url));

if (import.meta.main) writeFileSync(PAGE, withTables(readFileSync(PAGE, "utf8")));

/**
 * Gives the page with its tables as they should be.
 * @throws Error where it has no place for one.
 */
export function withTables(page: string): string {
  return [...ERROR_SECTIONS, ...FINDING_SECTIONS].reduce((text, section) => {
    const [before, rest] = cut(text, `<!-- ${section.title} -->\n`);
    const [, after] = cut(rest, `<!-- end of ${section.title} -->\n`);
    return `${before}<!-- ${section.title} -->\n${table(section)}<!-- end of ${section.title} -->\n${after}`;
  }, page);
}

function cut(text: string, at: string): readonly [before: string, after: string] {
  const parts = text.split(at);
  if (parts.length !== 2)
    throw new Error(`08-errors.md has ${parts.length - 1} times, and must have once: ${at}`);
  return parts as [string, string];
}

function table({ entries }: Section): string {
  const isErrors = entries.some(({ retry }) => retry !== undefined);
  const rows = entries.map(({ code, retry, meaning, remedy }) => [
    `\`${code}\``,
    ...(isErrors ? [retry ?? ""] : []),
    meaning,
    remedy,
  ]);
  const head = ["code", ...(isErrors ? ["directive"] : []), "what it means", "what to do"];
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |\n`;
  return `${line(head)}|${"---|".repeat(head.length)}\n${rows.map(line).join("")}`;
}
