/** Tells people something on standard error, where standard output is for what was asked for. */
export function note(line: string): void {
  process.stderr.write(`tributary: ${line}\n`);
}

/** Prints lines for people on standard output. */
export function say(...lines: readonly string[]): void {
  process.stdout.write(`${lines.join("\n")}\n`);
}
