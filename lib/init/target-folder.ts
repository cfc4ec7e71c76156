import { execFile } from "node:child_process";
import { constants } from "node:fs";
import { access, chmod, lstat, mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { ConfigurationError } from "../change/tributary-error.ts";
import type { Manifest } from "./package-manifest.ts";
import { LINE_FILES } from "./project-files.ts";

/** A file to be written, with its whole text. */
export interface PlannedFile {
  readonly path: string;
  readonly text: string;
  readonly isNew: boolean;
}

/** Folders that hold nothing of the user's own. */
const NOT_OWN = ["node_modules", "cdk.out"];

/** The folder that a project is made in: what is there is never overwritten. */
export class TargetFolder {
  readonly directory: string;

  constructor(directory: string) {
    this.directory = directory;
  }

  /** @throws ConfigurationError where nothing can be written: a file of that name, no rights. */
  async check(): Promise<void> {
    await this.#checkFolder(this.directory);
  }

  async #checkFolder(directory: string): Promise<void> {
    for (let folder = directory; ; folder = dirname(folder)) {
      const found = await stat(folder).catch((error: NodeJS.ErrnoException) => error);
      if (found instanceof Error && (await lstat(folder).catch(() => undefined)))
        throw this.#wrong(`${folder} is a link that leads nowhere: remove it, or name another folder`);
      if (!(found instanceof Error)) {
        if (!found.isDirectory()) throw this.#wrong(`${folder} is a file: name another folder`);
        return await access(folder, constants.W_OK | constants.X_OK).catch(() => {
          throw this.#wrong(`${folder} may not be written to: name another folder, or correct its rights`);
        });
      }
      if (found.code === "ENOTDIR") continue;
      if (found.code !== "ENOENT") throw this.#wrong(found.message);
    }
  }

  /** Reads the package.json that is there, and how it is indented. @throws ConfigurationError where it is none. */
  async manifest(): Promise<{ readonly manifest: Manifest; readonly indent: string } | undefined> {
    const text = await this.#read("package.json");
    if (text === undefined) return undefined;
    const indent = /^([ \t]+)"/m.exec(text)?.[1] ?? "  ";
    try {
      const parsed: unknown = JSON.parse(text);
      if (typeof parsed === "object" && parsed !== null && !Array.isArray(parsed))
        return { manifest: parsed as Manifest, indent };
    } catch {
      // Said below.
    }
    throw new ConfigurationError("The folder", [
      {
        path: "package.json",
        value: undefined,
        remedy: "it is no JSON object: correct it, or name another folder",
      },
    ]);
  }

  /** True where there is JavaScript or TypeScript beside init's own files. */
  async hasSources(own: Iterable<string>): Promise<boolean> {
    const ours = new Set(own);
    const left = [""];
    for (let folder = left.pop(); folder !== undefined; folder = left.pop()) {
      const entries = await readdir(join(this.directory, folder), { withFileTypes: true }).catch(() => []);
      for (const entry of entries) {
        const path = folder === "" ? entry.name : `${folder}/${entry.name}`;
        if (entry.isDirectory()) {
          if (!NOT_OWN.includes(entry.name) && !entry.name.startsWith(".")) left.push(path);
        } else if (/\.[cm]?[jt]sx?$/.test(entry.name) && !ours.has(path)) return true;
      }
    }
    return false;
  }

  /**
   * Returns what is to be written of these files: what is there already, with the same text, is not.
   * @throws ConfigurationError listing the files that are there with another text.
   */
  async plan(files: ReadonlyMap<string, string>): Promise<PlannedFile[]> {
    const planned: PlannedFile[] = [];
    const others: string[] = [];
    for (const [path, text] of files) {
      const there = await this.#read(path);
      if (there === text) continue;
      const next = there === undefined ? text : this.#lengthened(path, there, text);
      if (next === undefined) others.push(path);
      else if (next !== there) planned.push({ path, text: next, isNew: there === undefined });
    }
    if (others.length === 0) {
      for (const file of planned) await this.#checkWritable(file);
      return planned;
    }
    throw new ConfigurationError(
      "The folder",
      others.map((path) => ({
        path,
        value: join(this.directory, path),
        remedy:
          "it is there with another text, and nothing is overwritten: move it away, or name another folder",
      })),
    );
  }

  /** @throws ConfigurationError where `write` would fail with some of the files written: a link in the place, no rights; and where git would take the password. */
  async #checkWritable({ path, isNew }: PlannedFile): Promise<void> {
    const file = join(this.directory, path);
    await this.#checkFolder(dirname(file));
    if (path === ".env" && (await isTracked(file)))
      throw this.#wrong(
        `git keeps .env, whatever .gitignore says, and the database's password would go into it: git rm --cached .env`,
      );
    if (isNew && (await lstat(file).catch(() => undefined)))
      throw this.#wrong(`${file} is a link that leads nowhere: remove it, or name another folder`);
    if (isNew) return;
    await access(file, constants.W_OK).catch(() => {
      throw this.#wrong(`${file} may not be written to, and has to get lines: correct its rights`);
    });
  }

  /** Writes the files. `.env` is for its owner alone. */
  async write(files: readonly PlannedFile[]): Promise<void> {
    // What keeps the password out of git is there before it.
    const inOrder = files.toSorted((a, b) => Number(a.path === ".env") - Number(b.path === ".env"));
    for (const { path, text, isNew } of inOrder) {
      const file = join(this.directory, path);
      const secret = path === ".env";
      await mkdir(dirname(file), { recursive: true });
      if (secret && !isNew) await chmod(file, 0o600);
      await writeFile(file, text, { flag: isNew ? "wx" : "w", mode: secret ? 0o600 : 0o666 });
    }
  }

  /** The text with the lines that it lacks; undefined where it says something else. */
  #lengthened(path: string, there: string, text: string): string | undefined {
    if (path === "package.json") return text;
    if (!LINE_FILES.includes(path)) return undefined;
    const lines = there.replace(/^\uFEFF/, "").split(/\r?\n/);
    // For git a space at the beginning belongs to the name, and `!` takes back what stands above it.
    const holds = (line: string) =>
      path === ".gitignore"
        ? lines
            .slice(lines.findLastIndex((other) => other.startsWith("!")) + 1)
            .some((other) => other.trimEnd() === line)
        : lines.some((other) => other.trim() === line);
    const missing = text.split("\n").filter((line) => line !== "" && !holds(line));
    const sets = (line: string) => /^\s*(?:export\s+)?([^=\s]+)\s*=/.exec(line)?.[1];
    if (path === ".env" && missing.some((line) => lines.some((other) => sets(other) === sets(line))))
      return undefined;
    if (missing.length === 0) return there;
    return `${there}${there === "" || there.endsWith("\n") ? "" : "\n"}${missing.join("\n")}\n`;
  }

  async #read(path: string): Promise<string | undefined> {
    const file = join(this.directory, path);
    try {
      return await readFile(file, "utf8");
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      if (code === "ENOENT") return undefined;
      const remedy =
        code === "EISDIR" || code === "ENOTDIR"
          ? "a folder stands where a file should, or a file where a folder should: move it away"
          : message;
      throw new ConfigurationError("The folder", [{ path, value: file, remedy }]);
    }
  }

  #wrong(remedy: string): ConfigurationError {
    return new ConfigurationError("The command line", [
      { path: "the folder", value: this.directory, remedy },
    ]);
  }
}

/** Returns whether git keeps a file; false where there is no git, or no repository. */
async function isTracked(file: string): Promise<boolean> {
  const listed = promisify(execFile)("git", ["ls-files", "--error-unmatch", "--", file], {
    cwd: dirname(file),
  });
  return await listed.then(
    () => true,
    () => false,
  );
}
