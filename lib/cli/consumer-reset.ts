import { Command } from "commander";
import { resetPartitions } from "../admin/reset.ts";
import { healReset, type ResetOutcome, type ResetProgress, type ResetTable } from "../admin/reset-healing.ts";
import { planReset, type ResetPlan } from "../admin/reset-plan.ts";
import type { ConfigurationProblem } from "../change/tributary-error.ts";
import type { ConsumerPlace } from "../consume/fence/consumer-table.ts";
import type { ConsumerDefinition, Pipeline } from "../definition/definition.ts";
import { topicPattern } from "../definition/topic-pattern.ts";
import { backfillFigures } from "../state/backfill-figures.ts";
import { pausedBy, resumeCommand } from "../state/pause.ts";
import { readPauses } from "../state/pauses.ts";
import { heard } from "./backfill.ts";
import { confirmProblems } from "./confirm.ts";
import { byOption, operator } from "./operator.ts";
import {
  confirmOption,
  consumerOption,
  jsonOption,
  type PlaceOptions,
  placeOf,
  readPipeline,
  secondsOption,
  topicOption,
  unknownConsumer,
  withPlace,
} from "./options.ts";
import { note, say } from "./say.ts";

interface ResetArguments extends PlaceOptions {
  readonly consumer: string;
  readonly topic?: string;
  readonly anew?: boolean;
  readonly by?: string;
  readonly confirm?: string;
  readonly timeout: number;
  readonly json?: boolean;
}

const TELL_EVERY_MS = 2_000;

/** `tributary consumer reset`: a new start position and a backfill in one act. */
export function consumerResetCommand(): Command {
  return withPlace(
    new Command("reset").description(
      "begin anew behind what is parked, held or missing, and read the tables again",
    ),
  )
    .addOption(consumerOption().makeOptionMandatory())
    .addOption(topicOption("only this topic (default: all whose tables can be read again)"))
    .addOption(confirmOption())
    .option("--anew", "begin anew, although an earlier reset has not ended: the sink was emptied once more")
    .addOption(byOption("resets"))
    .addOption(secondsOption("--timeout <seconds>", "how long to wait for the rows", 0).default(3600))
    .addOption(jsonOption("a line for the plan, for each step and for the end"))
    .addHelpText(
      "after",
      `
For a sink that was rebuilt, or a consumer that is too far behind to catch up. Empty the sink first, if it can be: rows that it
holds and the tables do not have any more are removed at the end, by a handler's onSweep alone. The stream and other consumers go on
meanwhile. Ctrl-C leaves the rows coming; the same command shows how far they are, and finishes what was broken off. Exit code:
0 all rows are in the sink, 1 not all, 2 only shown. See the docs, Backfill, "A rebuilt sink".

  tributary consumer reset --consumer order-summary
  tributary consumer reset --consumer order-summary --confirm shop`,
    )
    .action(reset);
}

async function reset(options: ResetArguments): Promise<void> {
  const pipeline = await readPipeline(options.pipeline);
  const { consumer, topic, anew, json = false, confirm } = options;
  const definition = pipeline.consumers.find(({ name }) => name === consumer);
  const problems = [
    ...confirmProblems(confirm, pipeline.name),
    ...scopeProblems(pipeline, definition, options),
  ];
  const stop = new AbortController();
  const { signal } = stop;
  const place: ConsumerPlace = { ...placeOf(pipeline, options, problems), consumer };
  const plan = await planReset(place, pipeline, { topic, anew }, signal);
  const paused = await pausesOf(place, signal);
  if (json) say(JSON.stringify({ kind: "plan", consumer, ...plan, paused: paused.map(({ what }) => what) }));
  else say(...planInWords(consumer, plan), ...paused.map(({ told }) => told));
  if (confirm === undefined) {
    if (!json) say("", `Nothing was changed. To do it, repeat the command with: --confirm ${pipeline.name}`);
    process.exitCode = 2;
    return;
  }
  let isMoved = false;
  process.once("SIGINT", () => stop.abort(new Interrupted()));
  try {
    const record = await resetPartitions(
      place,
      { topics: plan.topics, only: plan.only, seen: plan.last, goesOn: plan.goesOn },
      {
        by: operator(options.by),
        invocationMs: (definition as ConsumerDefinition).timeoutSeconds * 1000,
        signal,
        onStep: (step) => {
          if (json) say(JSON.stringify({ consumer, ...step }));
          else if (step.kind === "waits") note(`waits for ${step.reason}`);
          else if (step.done === step.of) say(`${step.of} partitions begin anew.`);
        },
      },
    );
    isMoved = true;
    const deaf = await heard({ ...place, signal });
    const cannotEnd = deaf !== "" || paused.length > 0;
    const outcome = await healReset(place, record, {
      signal,
      timeoutMs: cannotEnd ? 0 : options.timeout * 1000,
      onProgress: progressTeller(consumer, json),
    });
    if (json) say(JSON.stringify({ kind: "end", consumer, outcome }));
    else say(`${OUTCOMES[outcome](consumer)}${outcome === "asked" || outcome === "waiting" ? deaf : ""}`);
    if (outcome !== "healed") process.exitCode = 1;
  } catch (error) {
    if (!(signal.aborted && signal.reason instanceof Interrupted)) throw error;
    note(
      isMoved
        ? `what was asked for goes on; to see how far it is: tributary consumer reset --consumer ${consumer} --confirm ${pipeline.name}`
        : `broken off; to finish it: tributary consumer reset --consumer ${consumer} --confirm ${pipeline.name}`,
    );
    process.exitCode = 130;
  }
}

/** Ctrl-C. */
class Interrupted extends Error {}

const OUTCOMES: Record<ResetOutcome, (consumer: string) => string> = {
  healed: (consumer) => `All rows are in the sink of ${consumer}.`,
  failed: (consumer) =>
    `All rows were read, and some are not in the sink of ${consumer}: changes failed, or wait for somebody: tributary consumer status --consumer ${consumer}`,
  asked: (consumer) =>
    `Not all rows are in the sink yet: they come by themselves. Until then ${consumer} shows as unhealed: tributary consumer status --consumer ${consumer}`,
  waiting: () =>
    "Another backfill has to end before the tables are read: see tributary backfill status, and repeat this command.",
};

function scopeProblems(
  pipeline: Pipeline,
  definition: ConsumerDefinition | undefined,
  { consumer, topic }: ResetArguments,
): ConfigurationProblem[] {
  if (!definition) return [unknownConsumer(consumer, pipeline)];
  if (topic === undefined || definition.topics.some((pattern) => topicPattern(pattern)(topic))) return [];
  const remedy = `${consumer} does not read it, but ${definition.topics.join(", ")}`;
  return [{ path: "--topic", value: topic, remedy }];
}

/** Pauses that keep rows from coming. */
async function pausesOf(place: ConsumerPlace, signal: AbortSignal) {
  const { capture, consumers } = await readPauses({ ...place, signal });
  const own = consumers.get(place.consumer);
  const told = (who: string, pause: NonNullable<typeof own>, command: string) =>
    `${who} is paused ${pausedBy(pause)}: rows come once it goes on: ${command}`;
  return [
    ...(capture ? [{ what: "capture", told: told("Capture", capture, resumeCommand("capture")) }] : []),
    ...(own
      ? [
          {
            what: place.consumer,
            told: told(place.consumer, own, resumeCommand({ consumer: place.consumer })),
          },
        ]
      : []),
  ];
}

function planInWords(consumer: string, plan: ResetPlan): string[] {
  const { topics, rows, refused, left, clears, last, goesOn } = plan;
  const warnings = Object.entries(refused).map(
    ([table, reason]) =>
      `The last backfill of ${table} was refused: ${reason}. Until that is mended, this reset cannot end.`,
  );
  if (goesOn && last)
    return [
      `A reset of ${consumer} that ${last.by} began at ${last.at} has not ended: this goes on with it.`,
      "Where the sink was emptied once more since then, or what failed since is to be cleared too, add --anew.",
      ...warnings,
    ];
  const many = topics.reduce((sum, { partitions }) => sum + partitions, 0);
  const cleared = clearedInWords(clears);
  return [
    `${consumer} begins anew in ${many} partitions, and is given the rows of these tables again:`,
    ...topics.flatMap(({ topic, tables }) =>
      tables.map((table) => `  ${table}, ${rowsInWords(rows[table])}, in ${topic}`),
    ),
    `What it has not applied by now it never will: the rows stand for it.${cleared.length > 0 ? ` That is ${cleared.join(", ")}.` : ""}`,
    ...(clears.deadLetters > 0
      ? [
          "Messages about them stay in the dead-letter queue until they expire; tributary dlq list shows them as superseded.",
        ]
      : []),
    ...warnings,
    ...left.map((topic) => `${topic} stays as it is: its changes cannot be read again.`),
    "Empty the sink first, if it can be: what it holds and the tables do not have any more goes by a handler's onSweep alone.",
    "A handler that is registered for Operation.Read gets each row once more: for effects besides rows, such as mails, register others.",
  ];
}

function clearedInWords({
  deadLetters,
  parked,
  held,
  heldBytes,
  gaps,
  unhealed,
}: ResetPlan["clears"]): string[] {
  return [
    ...(deadLetters > 0 ? [`${deadLetters} keys with open dead letters (${parked} changes parked)`] : []),
    ...(held > 0 ? [`${held} held partitions (${Math.ceil(heldBytes / 1024)} KB)`] : []),
    ...(gaps > 0 ? [`${gaps} gaps`] : []),
    ...(unhealed > 0 ? [`${unhealed} stretches of missing changes`] : []),
  ];
}

function rowsInWords(rows: number | undefined): string {
  if (rows === undefined) return "an unknown number of rows";
  return `about ${Math.max(0, rows).toLocaleString("en-US")} rows`;
}

/** Tells of progress where there is some, every two seconds at most. */
function progressTeller(consumer: string, json: boolean): (progress: ResetProgress) => void {
  let told = "";
  let toldAt = Number.NEGATIVE_INFINITY;
  return ({ partitions, tables }) => {
    const text = tables.map((table) => tableInWords(table)).join("; ");
    const line = `${text}; ${partitions} partitions wait`;
    if (line === told || performance.now() - toldAt < TELL_EVERY_MS) return;
    [told, toldAt] = [line, performance.now()];
    if (!json) say(line);
    else {
      const facts = tables.map(({ table, state, backfill }) => {
        const { rows, percent } = backfillFigures(backfill ?? { status: "requested", progress: undefined });
        return { table, state, run: backfill?.run, rows, percent };
      });
      say(JSON.stringify({ kind: "progress", consumer, partitions, tables: facts }));
    }
  };
}

function tableInWords({ table, state, until, backfill }: ResetTable): string {
  const { rows, percent } = backfillFigures(backfill ?? { status: "requested", progress: undefined });
  switch (state) {
    case "drain":
      return `${table} waits until ${new Date(until ?? 0).toISOString()}: an invocation from before may run until then`;
    case "busy":
      return `${table} waits for another backfill to end (${backfill?.status})`;
    case "reading": {
      const reason = backfill?.progress?.reason;
      const done = percent === undefined ? "" : ` (${percent}%)`;
      return backfill?.progress
        ? `${table}: ${rows.toLocaleString("en-US")} rows read${done}${reason ? `, ${reason}` : ""}`
        : `${table}: asked for`;
    }
    case "applying":
      return `${table}: all ${rows.toLocaleString("en-US")} rows read, the consumer applies them`;
  }
}
