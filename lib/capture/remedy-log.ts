import { commandPlace } from "../change/command-place.ts";
import type { PrintedProblem } from "../change/error-text.ts";
import { type CommandPlace, withCommands } from "../change/printed-command.ts";
import type { Log } from "../log.ts";

/** A log whose lines have their remedies' commands as they are typed where the log is read, and name the command that explains their code. */
export function withRemedies(log: Log, place: CommandPlace = commandPlace()): Log {
  const told = (fields: Record<string, unknown> = {}) => {
    const { remedy, code, problems } = fields;
    if (typeof remedy !== "string" || typeof code !== "string") return fields;
    const several = problems as readonly PrintedProblem[] | undefined;
    const codes = several ? [...new Set(several.map((one) => one.code))] : [code];
    return {
      ...fields,
      remedy: withCommands(remedy, place),
      more: withCommands(`tributary explain ${codes.join(" ")}`, place),
      ...(several
        ? { problems: several.map((one) => ({ ...one, remedy: withCommands(one.remedy, place) })) }
        : {}),
    };
  };
  return {
    info: (message, fields) => log.info(message, told(fields)),
    warn: (message, fields) => log.warn(message, told(fields)),
    error: (message, fields) => log.error(message, told(fields)),
  };
}
