import { Command, InvalidArgumentError, Option } from "commander";
import { SERVER_SORTS } from "../admin/database-script.ts";
import { type CheckResult, type Diagnosis, type DoctorSubject, examine } from "../admin/doctor/index.ts";
import { moreOf } from "../change/error-text.ts";
import { ConfigurationError } from "../change/tributary-error.ts";
import { readDefinition } from "../definition/file.ts";
import { findDefinition, projectDirectory } from "../definition/find-definition.ts";
import { OPERATE_VARIABLE } from "../definition/remote-program.ts";
import { DEFINITION_VARIABLE } from "../local/dev/variables.ts";
import { abortOnSignals } from "../local/stop-signal.ts";
import { commandDatabase } from "./database.ts";
import { printScript, type ScriptArguments } from "./doctor-sql.ts";
import { databaseUrlOption, jsonOption, type PlaceOptions, readPipeline, withPlace } from "./options.ts";
import { loadProjectEnvironment } from "./project-environment.ts";
import { orRemote } from "./remote.ts";
import { resourcesOf } from "./resources-of.ts";
import { note, say, typed } from "./say.ts";

interface DoctorArguments extends PlaceOptions, ScriptArguments {
  readonly sql: boolean;
  readonly json?: boolean;
}

/** Variables that name a database. */
const DATABASE_VARIABLES = ["DATABASE_URL", "PGHOST", "TRIBUTARY_DATABASE_SECRET_ARN"];
/** From the first to the second word that something is under way, and from each to the next, in milliseconds. */
const FIRST_WORD_MS = 1_000;
const NEXT_WORD_MS = 5_000;

/** `tributary doctor`: looks at everything and touches nothing. */
export function doctorCommand(): Command {
  const command = withPlace(new Command("doctor"))
    .description("look at everything that the pipeline needs, and touch nothing")
    .addOption(databaseUrlOption())
    .addOption(jsonOption("the outcome of each check"))
    .option("--sql", "print a script for psql that makes the database ready, and look at nothing else", false)
    .addOption(
      new Option("--for <host>", "of --sql: where the server is (default: the server tells)").choices(
        SERVER_SORTS,
      ),
    )
    .addOption(
      new Option("--role <name>", "of --sql: the role of the capture task")
        .default("tributary")
        .argParser(roleName),
    )
    .addHelpText(
      "after",
      `
Each check ends as ok, problem (with its code and what to do) or unchecked (with why). Exit code 0: no problem; 1: one or more; 2: wrong usage.
Handlers are bundled in a temporary directory and loaded in a process of their own; nothing is invoked.

  tributary doctor
  tributary doctor --database-url postgres://tributary@db.example.com/shop
  tributary doctor --sql --for rds | psql -h db.example.com -U postgres shop`,
    );
  return orRemote(command, run);
}

async function run(given: DoctorArguments): Promise<void> {
  if (given.sql) return await printSql(given);
  if (given.for !== undefined) {
    const remedy = "leave it out, or add --sql: it says for which server the script is";
    throw new ConfigurationError("The command line", [{ path: "--for", value: given.for, remedy }]);
  }
  const subject = await subjectOf(given);
  const stopping = new AbortController();
  abortOnSignals(stopping);
  using progress = new Progress();
  const diagnosis = await examine(subject, {
    signal: stopping.signal,
    onProgress: (underWay) => progress.set(underWay),
  }).catch((error: unknown) => {
    if (!stopping.signal.aborted) throw error;
    return undefined;
  });
  if (diagnosis === undefined) {
    note("interrupted: nothing was touched");
    process.exitCode = 1;
    return;
  }
  if (given.json) say(JSON.stringify(asTyped(diagnosis), undefined, 2));
  else say(...inLines(diagnosis));
  if (!diagnosis.healthy) process.exitCode = 1;
}

/** Has the commands of its remedies as they run here. */
function asTyped(diagnosis: Diagnosis): Diagnosis {
  const checks = diagnosis.checks.map((check) =>
    check.status === "problem"
      ? { ...check, problems: check.problems.map((one) => ({ ...one, remedy: typed(one.remedy) })) }
      : check,
  );
  return { ...diagnosis, checks };
}

async function printSql(given: DoctorArguments): Promise<void> {
  if (given.json) {
    const remedy = "leave it out: --sql prints a script";
    throw new ConfigurationError("The command line", [{ path: "--json", value: true, remedy }]);
  }
  await loadProjectEnvironment(given.pipeline);
  // As it is written, not as tributary dev runs it: what dev needs it makes itself.
  const pipeline = await readPipeline(given.pipeline ?? (process.env[DEFINITION_VARIABLE] || undefined));
  await printScript(pipeline, given, hasDatabase(given));
}

/** Returns true if something names the database. */
function hasDatabase({ databaseUrl }: DoctorArguments): boolean {
  return databaseUrl !== undefined || DATABASE_VARIABLES.some((name) => process.env[name]);
}

/** Stands unquoted in what people type, and in a psql prompt. */
function roleName(text: string): string {
  if (/^[a-z_][a-z0-9_$-]{0,62}$/.test(text)) return text;
  throw new InvalidArgumentError("write lower-case letters, digits, _ and -, at most 63.");
}

/** Finds what there is to look at; what cannot be found the checks tell. */
async function subjectOf(given: DoctorArguments): Promise<DoctorSubject> {
  // Without a definition there is no project, and so no .env.
  await loadProjectEnvironment(given.pipeline).catch(unlessConfiguration);
  const definition = await foundDefinition(given.pipeline);
  const { file } = definition;
  // Under tributary dev the definition is its own file, which reads the user's.
  const userFile = process.env[DEFINITION_VARIABLE] || file;
  return {
    node: process.versions.node,
    environment: process.env,
    definition,
    database: hasDatabase(given) ? () => commandDatabase(given.databaseUrl) : undefined,
    resources:
      "pipeline" in definition
        ? await resourcesOf(definition.pipeline, given).catch(unlessConfiguration)
        : undefined,
    handlers: userFile === undefined ? undefined : await handlersOf(projectDirectory(userFile)),
  };
}

/** Looks at the handlers' files; in the capture image, which has none, it is not even loaded. */
async function handlersOf(project: string): Promise<DoctorSubject["handlers"]> {
  if (process.env[OPERATE_VARIABLE] !== undefined) return undefined;
  const { inspectHandlers } = await import("../local/handler-inspection.ts");
  return inspectHandlers(project, process.env);
}

async function foundDefinition(given: string | undefined): Promise<DoctorSubject["definition"]> {
  let file: string | undefined;
  try {
    ({ file } = await findDefinition(given));
    return { file, pipeline: await readDefinition(file) };
  } catch (error) {
    return { file, error };
  }
}

function unlessConfiguration(error: unknown): undefined {
  if (!(error instanceof ConfigurationError)) throw error;
  return undefined;
}

/** A diagnosis for people. */
export function inLines({ pipeline, place, checks }: Diagnosis): string[] {
  const count = (status: CheckResult["status"]) => checks.filter((check) => check.status === status).length;
  const looked = checks.filter(({ status }) => status !== "unchecked");
  const width = Math.max(...looked.map(({ name }) => name.length));
  const problems = count("problem");
  return [
    `pipeline ${pipeline ?? "(none)"}, ${place ?? "running nowhere that is named"}`,
    "",
    ...looked.flatMap((check) => lines(check, width)),
    ...uncheckedLines(checks),
    "",
    `${problems === 0 ? "no problem" : problems === 1 ? "1 problem" : `${problems} problems`}, ${count("ok")} ok, ${count("unchecked")} unchecked`,
  ];
}

function lines(check: CheckResult, width: number): string[] {
  const head = (text: string) => `${check.status.padEnd(9)}  ${check.name.padEnd(width)}  ${text}`.trimEnd();
  if (check.status === "unchecked") return [];
  const notes = (check.notes ?? []).flatMap((text) => below(`note: ${typed(text)}`));
  if (check.status === "ok") return [head(check.detail), ...notes];
  return [
    head(""),
    ...check.problems.flatMap(({ code, message, remedy }) => [
      ...below(`${code}: ${message}`),
      ...below(`What to do: ${typed(remedy)}`),
    ]),
    ...below(typed(moreOf(...new Set(check.problems.map(({ code }) => code))))),
    ...notes,
  ];
}

/** One reason often keeps many checks from looking: it is said once. */
function uncheckedLines(checks: readonly CheckResult[]): string[] {
  const names = new Map<string, string[]>();
  for (const check of checks)
    if (check.status === "unchecked") names.set(check.why, [...(names.get(check.why) ?? []), check.name]);
  return [...names].flatMap(([why, those]) => [`unchecked  ${those.join("; ")}`, ...below(typed(why))]);
}

function below(text: string): string[] {
  return text.split("\n").map((line) => `             ${line}`);
}

/** Says on standard error what is waited for, where it takes longer than a second. */
class Progress {
  #underWay: readonly string[] = [];
  readonly #started = performance.now();
  #timer: NodeJS.Timeout;

  constructor() {
    this.#timer = setTimeout(() => this.#tell(), FIRST_WORD_MS);
  }

  set(underWay: readonly string[]): void {
    this.#underWay = underWay;
  }

  #tell(): void {
    const seconds = Math.round((performance.now() - this.#started) / 1000);
    if (this.#underWay.length > 0) note(`${seconds} s: looking at ${this.#underWay.join(", ")} …`);
    this.#timer = setTimeout(() => this.#tell(), NEXT_WORD_MS);
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }
}
