import { Command } from "commander";
import { cancelPutAside, captureStatus, putAside, releaseTopic } from "../admin/capture.ts";
import { shellWord } from "../change/printed-command.ts";
import { formatTable } from "../change/table-pattern.ts";
import { ConfigurationError } from "../change/tributary-error.ts";
import type { UnhealedTable } from "../source/postgres/contract/unhealed-record.ts";
import { describe, healingRemedy } from "../source/postgres/contract/unhealed-tables.ts";
import { requireLog } from "../source/postgres/definition.ts";
import { isOfIdentity } from "../source/postgres/identity/identity-errors.ts";
import type { StoredHold } from "../state/holds.ts";
import { acceptUnhealed } from "../state/unhealed.ts";
import { capturePauseCommands } from "./capture-pause.ts";
import {
  jsonOption,
  oneTableOption,
  type PlaceOptions,
  placeOf,
  readPipeline,
  secondsOption,
  tableOption,
  topicOption,
  withPlace,
} from "./options.ts";
import { say, typed } from "./say.ts";

interface ReleaseOptions extends PlaceOptions {
  readonly topic?: string;
  readonly table?: string;
  readonly timeout: number;
  /** Its name before. */
  readonly wait?: number;
}
interface PutAsideOptions extends PlaceOptions {
  readonly at: string;
  readonly cancel?: boolean;
}
interface CaptureStatusOptions extends PlaceOptions {
  readonly json?: boolean;
}

/**
 * `tributary capture`: topics that the capture task holds, tables of which changes may be missing, and what to do about both. The task does
 * it; this asks and shows.
 */
export function captureCommand(): Command {
  const status = withPlace(
    new Command("status").description("topics that are held, tables with missing changes, and why"),
  )
    .addOption(jsonOption("one line"))
    .action(showStatus);
  const release = withPlace(
    new Command("release").description("give what is held of a topic into the stream, and hold it no more"),
  )
    .addOption(topicOption())
    .addOption(oneTableOption("accept that changes of this table are missing"))
    .addOption(
      secondsOption(
        "--timeout <seconds>",
        "how long to wait for consumers, where they must have come as far",
        0,
      ).default(60),
    )
    .addOption(secondsOption("--wait <seconds>", "the name of --timeout before", 0).hideHelp())
    .action(releaseOne);
  const deadLetter = withPlace(
    new Command("dead-letter").description("put one change aside that cannot become an event, and go on"),
  )
    .requiredOption("--at <position>", "its position, as the error and the status name it: 34 characters")
    .option("--cancel", "take that back, as long as the capture task has not come to it")
    .action(putOneAside);
  const capture = new Command("capture")
    .description(
      "topics that the capture task holds, tables with missing changes, changes put aside: status, release, dead-letter; pause and resume",
    )
    .addCommand(status)
    .addCommand(release)
    .addCommand(deadLetter);
  for (const command of capturePauseCommands()) capture.addCommand(command);
  return capture.addHelpText(
    "after",
    `
A change that cannot become an event holds its topic: from there on the topic's changes are stored in order, and all other
topics go on. Correct what the status names, then release it: the stored changes go into the stream before newer ones.

Where another table has the name, or the key of its rows is another one, the release goes on with what there is now, and has the
table read anew with a sweep. It waits until every consumer has passed what was stored before.

A table of which changes may be missing in the stream is listed until its rows were read again, with a sweep, or until you
accept that they are missing.

  tributary capture status
  tributary capture release --topic shop.public.orders
  tributary backfill start --table public.orders
  tributary capture release --table public.orders

Where a change cannot be corrected, it is put aside: it goes whole to the dead-letter queue of capture, its table is read again
with a sweep, and its topic is released. All such changes at once: source.undecodable: "dead-letter".

  tributary capture dead-letter --at 000000010000000001E446180000000002`,
  );
}

async function showStatus({ json, ...place }: CaptureStatusOptions): Promise<void> {
  const pipeline = await readPipeline(place.pipeline);
  const status = await captureStatus(placeOf(pipeline, place), pipeline);
  const { holds, unhealed, putAside, wanted } = status;
  if (json) say(JSON.stringify(status));
  else {
    if (holds.length === 0) say("No topic is held.");
    if (unhealed.length === 0) say("No changes are known to be missing.");
    for (const hold of holds) say(...linesOf(hold).map(typed), "");
    for (const table of unhealed) say(...linesOfTable(table).map(typed), "");
    for (const { table, position, code, reread } of putAside)
      say(`${table}: the change at ${position} was put aside (${code})${reread ? "" : ", to be read again"}`);
    for (const position of wanted) say(`the change at ${position} is to be put aside when it comes`);
  }
  if (holds.length + unhealed.length > 0) process.exitCode = 1;
}

function linesOfTable(entry: UnhealedTable): string[] {
  return [
    `${entry.table}: changes may be missing in the stream`,
    `  ${describe(entry)}`,
    `  what to do: ${healingRemedy(entry)}`,
  ];
}

function linesOf({ topic, reason, since, from, last, changes, bytes, released }: StoredHold): string[] {
  return [
    `${topic} is held since ${new Date(since).toISOString()} (${reason.code})${released ? ", to be released" : ""}`,
    `  ${reason.message}`,
    `  stored: ${changes} changes, ${bytes} bytes, from ${from} to ${last}`,
    `  what to do: ${reason.remedy}`,
    ...(isOfIdentity(reason.code)
      ? []
      : [
          `              then: tributary capture release --topic ${shellWord(topic)}`,
          `              or, to go on without this one change: tributary capture dead-letter --at ${reason.position}`,
        ]),
  ];
}

async function releaseOne({
  topic,
  table,
  timeout,
  wait = timeout,
  ...place
}: ReleaseOptions): Promise<void> {
  const given = [topic, table].filter((name) => name !== undefined);
  if (given.length !== 1) {
    const remedy =
      "name a topic that is held, or a table with missing changes: tributary capture status lists them";
    throw new ConfigurationError("The command line", [
      { path: "--topic, --table", value: given.join(" "), remedy },
    ]);
  }
  const definition = requireLog(await readPipeline(place.pipeline), "capture release");
  const store = placeOf(definition, place);
  if (topic !== undefined) {
    const behind = await releaseTopic(store, definition, topic, wait * 1000);
    if (behind.length > 0) {
      const names = behind.map(({ consumer, partitions }) => `${consumer} (${partitions.length} partitions)`);
      say(
        `Not released: ${names.join(", ")} must first pass what was stored of ${topic} before it was held.`,
        typed("See: tributary consumer status. Then release it again."),
      );
      process.exitCode = 1;
      return;
    }
    say(
      typed(
        `The capture task releases ${topic} in a moment, or when it starts. See: tributary capture status`,
      ),
    );
  } else {
    const name = formatTable(tableOption(table as string));
    await acceptUnhealed(store, name);
    say(`Accepted: what may be missing of ${name} stays missing.`);
  }
}

async function putOneAside({ at, cancel, ...place }: PutAsideOptions): Promise<void> {
  const store = placeOf(requireLog(await readPipeline(place.pipeline), "capture dead-letter"), place);
  if (cancel) {
    await cancelPutAside(store, at);
    say(`Nobody wants the change at ${at} put aside any more.`);
    return;
  }
  const released = await putAside(store, at);
  const see = typed("See: tributary capture status");
  say(
    `The capture task puts the change at ${at} aside when it comes to it${released === undefined ? "" : `, and releases ${released}`}. ${see}`,
  );
}
