import { hostname, userInfo } from "node:os";
import { Option } from "commander";

/** `--by`; `does` is what is on record under that name. */
export function byOption(does: string): Option {
  return new Option("--by <name>", `who ${does} it (default: the user and this machine)`);
}

/** `--reason`. */
export function reasonOption(): Option {
  return new Option("--reason <text>", "why, for whoever looks at it next");
}

/** Returns who runs the command: as `--by` says, or `ada@laptop`. */
export function operator(by: string | undefined): string {
  return by ?? `${userInfo().username}@${hostname()}`;
}
