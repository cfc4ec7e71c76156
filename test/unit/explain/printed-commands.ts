import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Command } from "commander";
import { transform } from "esbuild";
import { makeProgram } from "../../../lib/cli/program.ts";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));

/** A command of ours as a text names it. */
export interface PrintedCommand {
  readonly file: string;
  /** The words as they stand there, up to the first that is none of the command's. */
  readonly text: string;
  /** What is wrong with it; undefined where the program takes it. */
  readonly fault: string | undefined;
}

/** The command's name, in each way that it is typed, but where its first file says which Node it needs. */
const NAME = /(?<![\w/@.-])(?:npx tributary-cdc|npm run -s tributary --|tributary) (?=[a-z])(?!needs Node)/g;
/** Pages leave the name out, in a quotation of code. */
const UNNAMED = /(?<=`)(?=(?:backfill|capture|consumer|dlq|epoch|outbox|triggers) [a-z])/g;
/** Ends a word of prose or of code that a command stands in. */
const END = /[.,;:!?)\]…]+$/;

/** Every command in the texts of the tree: code without its comments, help, templates, pages. */
export async function printedCommands(): Promise<readonly PrintedCommand[]> {
  const code = ["lib", "cdk", "functions", "package"].flatMap((folder) =>
    filesBelow(folder, /\.(ts|sh|cjs|template)$/),
  );
  const pages = ["README.md", ...filesBelow("docs", /\.md$/), ...filesBelow("package", /\.md$/)];
  const found = await Promise.all(
    [...code, ...pages].map(async (file) => {
      const text = readFileSync(join(ROOT, file), "utf8");
      const isCode = file.endsWith(".ts");
      return commandsIn(isCode ? await withoutComments(text) : text, isCode).map((one) => ({ file, ...one }));
    }),
  );
  return found.flat();
}

/** The code of what users run, without its comments. */
export async function codeOfFiles(): Promise<readonly { readonly file: string; readonly code: string }[]> {
  const files = ["lib", "cdk", "functions"].flatMap((folder) => filesBelow(folder, /\.ts$/));
  return await Promise.all(
    files.map(async (file) => ({
      file,
      code: await withoutComments(readFileSync(join(ROOT, file), "utf8")),
    })),
  );
}

/** Files below a folder of the repository, by their path from its root. */
function filesBelow(folder: string, files: RegExp): string[] {
  return readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8" })
    .filter((name) => files.test(name) && !name.includes("node_modules"))
    .map((name) => join(folder, name));
}

async function withoutComments(source: string): Promise<string> {
  const { code } = await transform(source, {
    loader: "ts",
    charset: "utf8",
    legalComments: "none",
    minifyWhitespace: true,
    target: "node24",
  });
  return code;
}

/** The commands of a text. In code, one that ends a sentence or a quotation is meant to be run: it must have all that it needs. */
export function commandsIn(text: string, isCode: boolean): Omit<PrintedCommand, "file">[] {
  let plain = text;
  // What is filled in, the innermost first; what is put behind a word adds options to it.
  for (let filled = ""; filled !== plain; ) {
    filled = plain;
    plain = plain.replaceAll(/(?<=[a-z])\$\{[^{}]*\}/g, "").replaceAll(/(?<![a-z}])\$\{[^{}]*\}/g, "x");
  }
  const names = isCode ? [NAME] : [NAME, UNNAMED];
  return names
    .flatMap((pattern) => [...plain.matchAll(pattern)])
    .map(({ 0: name, index }) => {
      const rest = plain.slice(index + name.length).split(/\n|\\n/, 1)[0] ?? "";
      return parsed(rest.slice(0, 400), isCode);
    });
}

interface Word {
  readonly text: string;
  /** A quotation, a sentence or the text ends behind it. */
  readonly isLast: boolean;
}

function wordsOf(rest: string): Word[] {
  const words: Word[] = [];
  const pattern = /\s*('[^']*'|\\?"[^"\\]*\\?"|(?:<[^>]*>|[^\s'"`\\<])+)/y;
  for (;;) {
    const at = pattern.lastIndex;
    const match = pattern.exec(rest);
    if (match === null) return words;
    const { 1: word = "" } = match;
    const bare = word.replace(END, "");
    const isLast = bare !== word || /^(?:["`\\]|\s*$|\s*#|'\s|'$)/.test(rest.slice(pattern.lastIndex));
    if (at > 0 && bare === "") return words;
    words.push({ text: bare, isLast });
    if (isLast) return words;
  }
}

function parsed(rest: string, isCode: boolean): { text: string; fault: string | undefined } {
  const words = wordsOf(rest);
  const taken: string[] = [];
  const say = (fault?: string) => ({ text: taken.join(" "), fault });
  let command: Command = makeProgram();
  let at = 0;
  let isWhole = false;
  for (; at < words.length && command.commands.length > 0; at++) {
    const { text, isLast } = words[at] as Word;
    const verb = command.commands.find((one) => one.name() === text);
    taken.push(text);
    // `consumer status | accept-gap`: the group alone, in a list of verbs.
    if (verb === undefined)
      return say(command.parent === null || !/^(?:…|\||<)/.test(text) ? `unknown verb ${text}` : undefined);
    command = verb;
    isWhole = isLast;
  }
  if (command.commands.length > 0) return say(isWhole && isCode ? "a verb is missing" : undefined);
  const given = new Set<string>();
  for (; at < words.length && !isWhole; at++) {
    const { text, isLast } = words[at] as Word;
    const [flag = "", inline] = text.replace(/^\[/, "").replace(/\]$/, "").split("=");
    if (!flag.startsWith("-")) {
      // An argument, or the prose goes on.
      if (command.registeredArguments.length === 0) break;
      taken.push(text);
      isWhole = isLast;
      continue;
    }
    taken.push(text);
    const option = command.options.find(({ long, short }) => long === flag || short === flag);
    if (option === undefined && flag !== "--help") return say(`unknown option ${flag}`);
    given.add(flag);
    isWhole = isLast;
    if (option === undefined || !(option.required || option.optional) || inline !== undefined) continue;
    const value = words[at + 1];
    if (value === undefined || isLast) {
      // `--table …`
      if (/^\s*…/.test(rest.slice(rest.indexOf(flag) + flag.length))) return say();
      return option.required && isCode ? say(`${flag} has no value`) : say();
    }
    at++;
    taken.push(value.text);
    isWhole = value.isLast;
  }
  if (at >= words.length) isWhole = true;
  const missing = command.options.filter(({ mandatory, long }) => mandatory && !given.has(long ?? ""));
  if (isWhole && isCode && missing.length > 0)
    return say(`without ${missing.map(({ long }) => long).join(", ")}`);
  return say();
}
