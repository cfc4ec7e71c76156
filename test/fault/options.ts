import { parseArgs } from "node:util";
import { ConfigurationError, type ConfigurationProblem } from "../../lib/change/tributary-error.ts";
import { MAX_SLOTS } from "../../lib/source/postgres/definition.ts";

/** What `npm run test:fault` was asked for. */
export interface FaultOptions {
  readonly seeds: readonly number[];
  /** Names of the faults to inject; undefined: all. */
  readonly only: RegExp | undefined;
  readonly strength: number;
  /** Row changes of a round at least. */
  readonly changes: number;
  /** So many kills in one round, instead of the faults. */
  readonly kills: number | undefined;
  readonly slots: number;
  /** Whether what handlers print is shown. */
  readonly log: boolean;
}

/**
 * Reads the command line.
 * @throws ConfigurationError naming the option, what was given, and what should be.
 */
export function readOptions(argv: readonly string[]): FaultOptions {
  const { values } = parse(argv);
  const problems: ConfigurationProblem[] = [];
  const count = (name: string, text: string, most = 1_000_000, least = 1): number => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < least || value > most) {
      const remedy = `write a whole number from ${least} to ${most}`;
      problems.push({ path: `--${name}`, value: text, remedy });
    }
    return value;
  };
  const pattern = (text: string): RegExp | undefined => {
    try {
      return new RegExp(text);
    } catch {
      const remedy = 'write a regular expression over names of faults, such as "Kinesis|link"';
      problems.push({ path: "--only", value: text, remedy });
      return undefined;
    }
  };
  const seeds = values.seeds === undefined ? [values.seed ?? "1"] : values.seeds.split(",");
  const options: FaultOptions = {
    seeds: seeds.map((seed) => count(values.seeds === undefined ? "seed" : "seeds", seed, 1_000_000_000, 0)),
    only: values.only === undefined ? undefined : pattern(values.only),
    strength: count("strength", values.strength, 100),
    changes: count("changes", values.changes),
    kills: values.kills === undefined ? undefined : count("kills", values.kills),
    slots: count("slots", values.slots, MAX_SLOTS),
    log: values.log,
  };
  if (problems.length > 0) throw new ConfigurationError("The command line", problems);
  return options;
}

function parse(argv: readonly string[]) {
  try {
    return parseArgs({
      args: [...argv],
      options: {
        seed: { type: "string" },
        seeds: { type: "string" },
        only: { type: "string" },
        strength: { type: "string", default: "1" },
        changes: { type: "string", default: "600" },
        kills: { type: "string" },
        slots: { type: "string", default: "1" },
        log: { type: "boolean", default: false },
      },
    });
  } catch (error) {
    const remedy = `${(error as Error).message}; docs/06-faults.md lists the options`;
    throw new ConfigurationError("The command line", [
      { path: "npm run test:fault", value: argv.join(" "), remedy },
    ]);
  }
}
