import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

/*
 * `tributary` on npm is somebody else's package, which `npx tributary` would fetch and run where tributary-cdc is not
 * installed. The rule stands in CONTRIBUTING.md.
 */

const ROOT = fileURLToPath(new URL("../../", import.meta.url));

/** `npx tributary`, with npx's own options between, as npm's other ways to run a package have it too. */
const BARE =
  /\b(?:npx|npm exec|pnpm dlx|yarn dlx|bunx)(?:\s+--?[\w-]+(?:=\S+)?)*\s+(?:--\s+)?tributary(?![\w-])/g;
/** What puts the package into the reader's project. */
const INSTALLS =
  /\bnpm (?:(?:install|i|add)\b[^\n]*\btributary-cdc\b|create tributary-cdc\b|init tributary-cdc\b|ci\b)/;

/** The commands of a text that would run a stranger's package, as the text has them. */
function strangersIn(text: string, isPage: boolean): string[] {
  return [...text.matchAll(BARE)]
    .filter(({ index }) => !isPage || !INSTALLS.test(text.slice(0, index)))
    .map(([command]) => command);
}

/** Files that users read, that print to them, or that `init` writes into their projects. */
function filesForUsers(): string[] {
  const below = (folder: string, files: RegExp) =>
    readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8", withFileTypes: true })
      .filter((entry) => entry.isFile() && files.test(entry.name))
      .map((entry) => join(entry.parentPath, entry.name))
      .filter((path) => !path.includes("/node_modules/"));
  const here = readdirSync(ROOT).filter((name) => name.endsWith(".md") && name !== "CONTRIBUTING.md");
  return [
    ...here.map((name) => join(ROOT, name)),
    ...below("docs", /\.md$/),
    ...["lib", "cdk", "functions", "package"].flatMap((folder) => below(folder, /./)),
  ];
}

test("docs, errors, help and templates run the package by npx under its own name, unless it was installed above", () => {
  const files = filesForUsers();
  expect(files.length).toBeGreaterThan(300);
  const wrong = files.flatMap((path) =>
    strangersIn(readFileSync(path, "utf8"), path.endsWith(".md")).map(
      (command) => `${path.slice(ROOT.length)}: ${command}`,
    ),
  );
  expect(wrong).toEqual([]);
});

test("a page may use the short name behind an install, and nothing else may", () => {
  const command = "run npx tributary tail";
  expect(strangersIn(command, true)).toEqual(["npx tributary"]);
  expect(strangersIn(`npm install tributary-cdc\n${command}`, true)).toEqual([]);
  expect(strangersIn(`npm install express\n${command}`, true)).toEqual(["npx tributary"]);
  expect(strangersIn(`${command}\nnpm install tributary-cdc`, true)).toEqual(["npx tributary"]);
  expect(strangersIn(`npm install tributary-cdc\n${command}`, false)).toEqual(["npx tributary"]);
  expect(strangersIn("npx --yes tributary init; npm exec -- tributary init", false)).toHaveLength(2);
  expect(strangersIn("npx tributary-cdc init; npx --package tributary-cdc tributary-cdc", false)).toEqual([]);
});
