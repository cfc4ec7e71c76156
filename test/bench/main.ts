/*
 * `npm run bench -- <name> [options] [--json]`: measures on the real parts and prints what it saw. Run it on a machine
 * that has nothing else to do.
 */
import { type ParseArgsConfig, parseArgs } from "node:util";

/** Options of a measurement, as `parseArgs` of Node gives them. */
export type BenchValues = Readonly<Record<string, string | boolean | (string | boolean)[] | undefined>>;

/** A measurement: what it found as an object, and how that reads. */
export interface Bench {
  readonly about: string;
  /** What it takes beside `--json`: https://nodejs.org/api/util.html#utilparseargsconfig */
  readonly options?: NonNullable<ParseArgsConfig["options"]>;
  run(say: (line: string) => void, values: BenchValues): Promise<object>;
}

const BENCHES: Readonly<Record<string, () => Promise<Bench>>> = {
  backfill: async () => (await import("./backfill.ts")).backfill,
  capture: async () => (await import("./capture.ts")).capture,
  consume: async () => (await import("./consume.ts")).consume,
  latency: async () => (await import("./latency.ts")).latency,
  local: async () => (await import("./local.ts")).local,
  memory: async () => (await import("./memory.ts")).memory,
  outbox: async () => (await import("./outbox.ts")).outbox,
  "row-filter": async () => (await import("./row-filter.ts")).rowFilter,
  sources: async () => (await import("./sources.ts")).sources,
  scale: async () => (await import("./scale.ts")).scale,
  triggers: async () => (await import("./triggers.ts")).triggers,
};

const [name = "", ...args] = process.argv.slice(2);
const load = Object.hasOwn(BENCHES, name) ? BENCHES[name] : undefined;
if (load === undefined) usage(`<${Object.keys(BENCHES).join(" | ")}> [--json]`);
const bench = await load();
const values = read(bench);
const json = values.json === true;
const say = (line: string) => process[json ? "stderr" : "stdout"].write(`${line}\n`);
say(bench.about);
const found = await bench.run(say, values);
if (json) process.stdout.write(`${JSON.stringify(found)}\n`);
process.exit(0);

function read({ options = {} }: Bench): BenchValues {
  try {
    return parseArgs({ args, options: { ...options, json: { type: "boolean" } } }).values;
  } catch {
    const known = Object.entries(options).map(([option, { type }]) =>
      type === "boolean" ? `[--${option}]` : `[--${option} <value>]`,
    );
    usage([name, ...known, "[--json]"].join(" "));
  }
}

function usage(text: string): never {
  process.stderr.write(`npm run bench -- ${text}\n`);
  process.exit(2);
}
