import { commandPlace } from "../change/command-place.ts";
import { withCommands } from "../change/printed-command.ts";

/** Tells people something on standard error, where standard output is for what was asked for. */
export function note(line: string): void {
  process.stderr.write(`tributary: ${line}\n`);
}

/** Returns a text whose commands are typed as they run here. */
export function typed(text: string): string {
  return withCommands(text, commandPlace());
}

/** Prints lines for people on standard output. */
export function say(...lines: readonly string[]): void {
  process.stdout.write(`${lines.join("\n")}\n`);
}
