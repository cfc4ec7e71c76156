import type { Command } from "commander";

/** Returns the verb that a command belongs to: `consumer` of `tributary consumer status`. */
export function verbOf(command: Command): string {
  const { parent } = command;
  return parent?.parent ? verbOf(parent) : command.name();
}
