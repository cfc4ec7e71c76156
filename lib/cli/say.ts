/** Prints lines for people on standard output. */
export function say(...lines: readonly string[]): void {
  process.stdout.write(`${lines.join("\n")}\n`);
}
