import { readFile } from "node:fs/promises";

/** A fenced block of a page. */
export interface Block {
  /** `sh`, `ts`, `sql`, `text`. */
  readonly language: string;
  readonly text: string;
  /** `README.md:12`. */
  readonly place: string;
}

const ROOT = new URL("../../", import.meta.url);

/** Reads the blocks of a page, in their order. */
export async function blocksOf(page: string): Promise<Block[]> {
  const text = await readFile(new URL(page, ROOT), "utf8");
  return [...text.matchAll(/^```(\w*)\n(.*?)^```$/gms)].map(({ 1: language = "", 2: block = "", index }) => ({
    language,
    text: block,
    place: `${page}:${text.slice(0, index).split("\n").length}`,
  }));
}

/** Returns the commands of a block of `sh`, each as its words: without comments, each part of `a && b` for itself. */
export function commandsOf({ text }: Block): string[][] {
  return text
    .replaceAll("\\\n", " ")
    .split("\n")
    .flatMap((line) => splitAtAnd(wordsOf(line)))
    .filter((words) => words.length > 0);
}

/** The words of a line as a shell reads them, as far as pages go: quotes, and comments at its end. */
function wordsOf(line: string): string[] {
  const words: string[] = [];
  for (const [word] of line.matchAll(/(?:'[^']*'|"[^"]*"|[^\s'"])+/g)) {
    if (word.startsWith("#")) break;
    words.push(word.replaceAll(/'([^']*)'|"([^"]*)"/g, (_, single, double) => single ?? double));
  }
  return words;
}

function splitAtAnd(words: readonly string[]): string[][] {
  const at = words.indexOf("&&");
  return at < 0 ? [[...words]] : [words.slice(0, at), ...splitAtAnd(words.slice(at + 1))];
}
