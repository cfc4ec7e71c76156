/*
 * `npm run bench -- <name> [--json]`: measures on the real parts and prints what it saw. Run it on a machine that has
 * nothing else to do.
 */

/** A measurement: what it found as an object, and how that reads. */
export interface Bench {
  readonly about: string;
  run(say: (line: string) => void): Promise<object>;
}

const BENCHES: Readonly<Record<string, () => Promise<Bench>>> = {
  local: async () => (await import("./local.ts")).local,
  memory: async () => (await import("./memory.ts")).memory,
};

const [name = "", ...options] = process.argv.slice(2);
const json = options.includes("--json");
const unknown = options.filter((option) => option !== "--json");
const load = Object.hasOwn(BENCHES, name) ? BENCHES[name] : undefined;
if (load === undefined || unknown.length > 0) {
  process.stderr.write(`npm run bench -- <${Object.keys(BENCHES).join(" | ")}> [--json]\n`);
  process.exit(2);
}
const bench = await load();
const say = (line: string) => process[json ? "stderr" : "stdout"].write(`${line}\n`);
say(bench.about);
const found = await bench.run(say);
if (json) process.stdout.write(`${JSON.stringify(found)}\n`);
process.exit(0);
