import {
  appendFileSync,
  closeSync,
  fsyncSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeSync,
} from "node:fs";
import { dirname } from "node:path";
import type { ZodType } from "zod";
import { DevFileDamagedError } from "../local-errors.ts";
import { parsedLine } from "../parsed-line.ts";

/** Bytes beyond its content that a journal may have before it is written anew. */
const SLACK_BYTES = 64 * 1024 * 1024;
const WRITE_BYTES = 1024 * 1024;

/**
 * A file of JSON lines that an emulator's state is made from again. A line is in it when `append` returns, whatever becomes of the
 * process then; the system may lose it where the machine itself ends.
 */
export class Journal {
  readonly #path: string;
  #file: number;
  #bytes: number;
  #kept: number;

  private constructor(path: string, bytes: number) {
    this.#path = path;
    this.#file = openSync(path, "a", 0o600);
    this.#bytes = bytes;
    this.#kept = bytes;
  }

  /**
   * Opens the journal, and gives what it holds. A line whose end is missing was never answered, and is removed.
   * @throws DevFileDamagedError where another line is none of this form.
   */
  static open<E>(
    path: string,
    form: ZodType<E>,
  ): { readonly journal: Journal; readonly entries: readonly E[] } {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    const bytes = readIfThere(path);
    const whole = bytes.lastIndexOf("\n") + 1;
    if (whole < bytes.length) truncateSync(path, whole);
    const entries: E[] = [];
    for (let from = 0; from < whole; ) {
      const to = bytes.indexOf("\n", from);
      const entry = form.safeParse(parsedLine(bytes.toString("utf8", from, to)));
      // What a line in the middle said would be missing in silence.
      if (!entry.success) throw new DevFileDamagedError(path, entries.length + 1);
      entries.push(entry.data);
      from = to + 1;
    }
    return { journal: new Journal(path, whole), entries };
  }

  /** Appends a line; gives its bytes. A line that could not be written whole is taken back. */
  append(entry: unknown): number {
    const line = Buffer.from(`${JSON.stringify(entry)}\n`);
    try {
      appendFileSync(this.#file, line);
    } catch (error) {
      ftruncateSync(this.#file, this.#bytes);
      throw error;
    }
    this.#bytes += line.length;
    return line.length;
  }

  close(): void {
    closeSync(this.#file);
  }

  /** True where so much of it is out of date that it is worth writing anew. */
  get overgrown(): boolean {
    return this.#bytes > 2 * this.#kept + SLACK_BYTES;
  }

  /** Writes the journal anew with these entries alone; where that fails it stays as it was. */
  rewrite(entries: Iterable<unknown>): void {
    const draft = `${this.#path}.new`;
    rmSync(draft, { force: true });
    const file = openSync(draft, "a", 0o600);
    let bytes = 0;
    let buffer = "";
    const flush = () => {
      bytes += writeWhole(file, buffer);
      buffer = "";
    };
    try {
      for (const entry of entries) {
        buffer += `${JSON.stringify(entry)}\n`;
        if (buffer.length > WRITE_BYTES) flush();
      }
      flush();
      // Before the name: a machine that ends then finds the old file or the new one.
      fsyncSync(file);
      renameSync(draft, this.#path);
    } catch (error) {
      closeSync(file);
      throw error;
    }
    closeSync(this.#file);
    this.#file = file;
    this.#bytes = bytes;
    this.#kept = bytes;
  }
}

function readIfThere(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return Buffer.alloc(0);
    throw error;
  }
}

function writeWhole(file: number, text: string): number {
  const bytes = Buffer.from(text);
  for (let written = 0; written < bytes.length; ) written += writeSync(file, bytes, written);
  return bytes.length;
}
