import { Command, InvalidArgumentError } from "commander";
import { acceptGap, planAcceptance } from "../admin/accept-gap.ts";
import { consumerStatus, needsAttention, type PartitionStatus } from "../admin/consumer-status.ts";
import { NO_RUN } from "../admin/reset-note.ts";
import { tablesOfTopic } from "../admin/topic-tables.ts";
import { formatLsn } from "../change/lsn.ts";
import { type PositionText, parsePosition } from "../change/position.ts";
import { ConfigurationError, type ConfigurationProblem } from "../change/tributary-error.ts";
import type { ConsumerPlace } from "../consume/fence/consumer-table.ts";
import { type MissingChanges, unhealedTables } from "../consume/run/missing-changes.ts";
import type { Pipeline } from "../definition/definition.ts";
import { topicPattern } from "../definition/topic-pattern.ts";
import { isAgreed } from "./agreed.ts";
import { consumerPauseCommands } from "./consumer-pause.ts";
import { consumerResetCommand } from "./consumer-reset.ts";
import { byOption, operator } from "./operator.ts";
import {
  consumerOption,
  jsonOption,
  type PlaceOptions,
  placeOf,
  readPipeline,
  topicOption,
  unknownConsumer,
  withPlace,
} from "./options.ts";
import { say, typed } from "./say.ts";

interface ConsumerStatusOptions extends PlaceOptions {
  readonly consumer?: string;
  readonly all?: boolean;
  readonly json?: boolean;
}
interface AcceptOptions extends PlaceOptions {
  readonly consumer: string;
  readonly topic: string;
  readonly partition?: number;
  readonly backfill: boolean;
  readonly yes?: boolean;
  readonly by?: string;
  readonly json?: boolean;
}

/** `tributary consumer`: how consumers stand, and the way out of a gap. */
export function consumerCommand(): Command {
  const status = withPlace(new Command("status").description("how a consumer stands in each topic partition"))
    .addOption(consumerOption("only this one (default: all of the definition)"))
    .option("--all", "partitions too with which nothing is wrong")
    .addOption(jsonOption("a line for each partition"))
    .action(showStatus);
  const accept = withPlace(
    new Command("accept-gap").description("accept that changes are missing, and have their rows read again"),
  )
    .addOption(consumerOption().makeOptionMandatory())
    .addOption(topicOption().makeOptionMandatory())
    .option(
      "--partition <n>",
      "only this partition (default: all where changes are missing)",
      partitionNumber,
    )
    .option("--no-backfill", "read nothing again: what is missing stays missing, or you bring it yourself")
    .option("--yes", "do not ask")
    .addOption(byOption("accepts"))
    .addOption(jsonOption("a line for each partition"))
    .action(acceptMissing);
  const consumer = new Command("consumer")
    .description(
      "how consumers stand: status; the way out of a gap: accept-gap; pause and resume; a rebuilt sink: reset",
    )
    .addCommand(status)
    .addCommand(accept)
    .addCommand(consumerResetCommand());
  for (const command of consumerPauseCommands()) consumer.addCommand(command);
  return consumer.addHelpText(
    "after",
    `
A partition whose changes are missing is held by a GAP: nothing behind it is applied until somebody accepts that. First look
for the record: an event source mapping that gave up, a stream whose retention was over. accept-gap then has the topic's
tables read again for this consumer, with a sweep, and the partition goes on. It shows as unhealed until the
backfill's end has passed in it. Exit code of status: 1 where something needs attention. See the docs, "Consumers".

A paused consumer applies nothing: its changes wait in the stream, as long as the stream keeps them. It stays paused through
deploys and restarts, until somebody resumes it.

  tributary consumer status
  tributary consumer accept-gap --consumer order-summary --topic shop.public.orders
  tributary consumer pause --consumer order-summary --reason "its sink is being rebuilt"
  tributary consumer resume --consumer order-summary
  tributary consumer reset --consumer order-summary --confirm shop`,
  );
}

async function showStatus(options: ConsumerStatusOptions): Promise<void> {
  const pipeline = await readPipeline(options.pipeline);
  const names = pipeline.consumers.map(({ name }) => name);
  const problems =
    options.consumer === undefined || names.includes(options.consumer)
      ? []
      : [unknownConsumer(options.consumer, pipeline)];
  const { signal } = new AbortController();
  for (const consumer of options.consumer === undefined ? names : [options.consumer]) {
    const all = await consumerStatus(consumerPlace(pipeline, { ...options, consumer }, problems), signal);
    const shown = all.filter((status) => options.all || needsAttention(status));
    if (all.some(needsAttention)) process.exitCode = 1;
    if (options.json) for (const status of shown) say(JSON.stringify({ consumer, ...status }));
    else
      say(summaryOf(consumer, all), ...shown.flatMap((status) => statusInWords(status, consumer)).map(typed));
  }
}

async function acceptMissing(options: AcceptOptions): Promise<void> {
  const pipeline = await readPipeline(options.pipeline);
  const { consumer, topic, partition, json } = options;
  const place = consumerPlace(pipeline, options, topicProblems(pipeline, options));
  const { signal } = new AbortController();
  const tables = options.backfill ? await tablesOfTopic(place, pipeline, topic, signal) : [];
  const plan = await planAcceptance(
    place,
    { topic, partition, partitions: pipeline.topics.partitions },
    tables,
    signal,
  );
  const where = partition === undefined ? topic : `${topic}/${partition}`;
  if (plan.missing.length === 0) {
    if (!json) say(`Nothing is missing at ${consumer} in ${where}.`);
    return;
  }
  if (!json) say(...plan.missing.map(missingInWords));
  if (options.backfill && tables.length === 0) {
    const remedy = `no table of ${topic} can be read again: --no-backfill accepts that what is missing stays missing`;
    throw new ConfigurationError("The command line", [{ path: "--no-backfill", value: false, remedy }]);
  }
  const consequence =
    tables.length > 0
      ? `${consumer} goes on behind them, and ${tables.join(", ")} ${tables.length > 1 ? "are" : "is"} read again for it, with a sweep.`
      : `${consumer} goes on behind them. Nothing is read again.`;
  if (!json) say(consequence);
  if (!options.yes && !(await isAgreed("Accept that they are missing?"))) {
    if (!json) say("Nothing was done.");
    process.exitCode = 1;
    return;
  }
  for (const accepted of await acceptGap(place, plan, operator(options.by), signal)) {
    if (json) say(JSON.stringify({ consumer, ...accepted }));
    else say(`${accepted.topic}/${accepted.partition}: ${OUTCOMES[accepted.outcome]}`);
  }
  if (!json && tables.length > 0)
    say(typed(`Unhealed until the backfill has passed: tributary consumer status --consumer ${consumer}`));
}

/** The claim bucket's lifetime, less a month to act. */
const OLD_HOLD_MS = 60 * 24 * 3600 * 1000;

const WHY = {
  gap: "never came",
  expired: "may have expired unread",
  object: "are a large change whose object in the claim store is gone, or is another one",
  unreadable: "came in a record that could not be read",
  reset: "were left out by a reset",
};

const OUTCOMES = {
  passed: "accepted, goes on",
  noted: "accepted",
  came: "the changes have come meanwhile, nothing to pass",
};

function summaryOf(consumer: string, all: readonly PartitionStatus[]): string {
  const gaps = all.filter(({ gap }) => gap).length;
  const unhealed = all.filter((status) => status.unhealed.length > 0).length;
  const letters = all.reduce((sum, { deadLetters }) => sum + deadLetters, 0);
  const held = all.filter(({ hold }) => hold).length;
  return `${consumer}: ${all.length} partitions, ${held} held, ${gaps} before a gap, ${unhealed} unhealed, ${letters} keys with open dead letters`;
}

/** Describes the state of a consumer in one partition, as lines for people. */
export function statusInWords(status: PartitionStatus, consumer: string): string[] {
  const { topic, partition, checkpoint, writer, hold, gap, unhealed, deadLetters, parked, unread } = status;
  const at = checkpoint === undefined ? "nothing applied yet" : `at ${positionInWords(checkpoint)}`;
  if (unread) return [`  ${topic}/${partition}  ${unread.message}`, `    ${unread.remedy}`];
  const lines = [`  ${topic}/${partition}  ${at}, writer ${writer}`];
  // Where an object is lost, that is what holds it: the gap's lines say what mends it.
  const isLost = gap?.cause === "object";
  if (hold && isLost)
    lines.push(`    held since ${hold.since}: ${hold.cause}, ${Math.ceil(hold.bytes / 1024)} KB`);
  else if (hold)
    lines.push(
      `    held since ${hold.since}: ${hold.cause}, ${Math.ceil(hold.bytes / 1024)} KB: tributary redrive --consumer ${consumer}`,
    );
  if (hold && Date.now() - Date.parse(hold.since) > OLD_HOLD_MS)
    lines.push(
      "    large changes that it holds are gone from the claim store 90 days after they were written",
    );
  if (gap) {
    lines.push(`    stands before a gap: ${rangeInWords(gap)}, found ${gap.foundAt}`);
    if (isLost) lines.push(`    restore the object, then: tributary redrive --consumer ${consumer}`);
    lines.push(
      `    ${isLost ? "where it is gone for good: " : ""}tributary consumer accept-gap --consumer ${consumer} --topic '${topic}' --partition ${partition}`,
    );
  }
  for (const missing of unhealed) lines.push(`    unhealed: ${unhealedInWords(missing)}`);
  if (deadLetters > 0)
    lines.push(
      `    ${deadLetters} keys with open dead letters, ${parked} changes parked: tributary redrive --consumer ${consumer}`,
    );
  return lines;
}

function unhealedInWords(missing: MissingChanges): string {
  const { accepted, cause } = missing;
  const what = `${rangeInWords(missing)}${cause === "unreadable" ? " came in a record that could not be read" : ""}`;
  if (accepted && cause === "reset")
    return `reset by ${accepted.by} at ${accepted.at}; waits for the rows of ${unhealedTables(missing).join(", ")}: tributary consumer reset shows how far`;
  if (!accepted) return `${what}; accept-gap has their rows read again`;
  const run = (table: string) => {
    const named = accepted.tables[table];
    return named === NO_RUN ? "its backfill is yet to be asked for" : `backfill ${named}`;
  };
  const tables = unhealedTables(missing).map((table) => `${table} (${run(table)})`);
  return `${what}, accepted by ${accepted.by} at ${accepted.at}; waits for ${tables.join(", ")}`;
}

function missingInWords(missing: MissingChanges): string {
  const { topic, partition, cause } = missing;
  return `${topic}/${partition}: ${rangeInWords(missing)} ${WHY[cause]} (found ${missing.foundAt})`;
}

function rangeInWords({ behind, upTo }: MissingChanges): string {
  return `changes behind ${positionInWords(behind)}, up to ${positionInWords(upTo)}`;
}

/** `0/1F78A10#4`, with the epoch where it is not the first. */
function positionInWords(text: PositionText): string {
  const { epoch, commitLsn, ordinal } = parsePosition(text);
  return `${formatLsn(commitLsn)}#${ordinal}${epoch > 1 ? ` of epoch ${epoch}` : ""}`;
}

function topicProblems(pipeline: Pipeline, { consumer, topic }: AcceptOptions): ConfigurationProblem[] {
  const known = pipeline.consumers.find(({ name }) => name === consumer);
  if (!known) return [unknownConsumer(consumer, pipeline)];
  if (known.topics.some((pattern) => topicPattern(pattern)(topic))) return [];
  const remedy = `${consumer} does not read it, but ${known.topics.join(", ")}`;
  return [{ path: "--topic", value: topic, remedy }];
}

/** @throws ConfigurationError with all that is wrong */
function consumerPlace(
  pipeline: Pipeline,
  options: PlaceOptions & { readonly consumer: string },
  problems: readonly ConfigurationProblem[],
): ConsumerPlace {
  return { ...placeOf(pipeline, options, problems), consumer: options.consumer };
}

function partitionNumber(text: string): number {
  if (!/^\d{1,6}$/.test(text)) throw new InvalidArgumentError("write a whole number from 0.");
  return Number(text);
}
