import { Command } from "commander";
import { dynamodbClient } from "../aws.ts";
import { isPosition } from "../change/position.ts";
import { readDefinition } from "../definition-file.ts";
import { ConfigurationError } from "../errors.ts";
import { requireLog } from "../pipeline.ts";
import { readAsides, readWantedAsides, wantAside } from "../state/asides.ts";
import { type HoldStore, readHolds, type StoredHold, wantRelease } from "../state/holds.ts";
import { pipelineOption } from "./options.ts";
import { say } from "./say.ts";

interface Place {
  readonly pipeline: string;
  readonly stateTable?: string;
}
interface ReleaseOptions extends Place {
  readonly topic: string;
}
interface PutAsideOptions extends Place {
  readonly at: string;
}
interface StatusOptions extends Place {
  readonly json?: boolean;
}

/** `tributary capture`: topics that the capture task holds, and their release. The task does it; this asks and shows. */
export function captureCommand(): Command {
  const status = withPlace(new Command("status").description("the topics that are held, and why"))
    .option("--json", "print them as one line of JSON")
    .action(showHolds);
  const release = withPlace(
    new Command("release").description("give what is held of a topic into the stream, and hold it no more"),
  )
    .requiredOption("--topic <name>", "the topic: shop.public.orders")
    .action(releaseTopic);
  const deadLetter = withPlace(
    new Command("dead-letter").description("put one change aside that cannot become an event, and go on"),
  )
    .requiredOption("--at <position>", "its position, as the error and the status name it: 34 characters")
    .action(putAside);
  return new Command("capture")
    .description("changes that cannot become events: status, release, dead-letter")
    .addCommand(status)
    .addCommand(release)
    .addCommand(deadLetter)
    .addHelpText(
      "after",
      `
A change that cannot become an event holds its topic: from there on the topic's changes are stored in order, and all other
topics go on. Correct what the status names, then release it: the stored changes go into the stream before newer ones.

  tributary capture status
  tributary capture release --topic shop.public.orders

Where it cannot be corrected, the one change is put aside: it goes whole to the dead-letter queue of capture, its table is read
again with a sweep, and its topic is released. All such changes at once: source.undecodable: "dead-letter".

  tributary capture dead-letter --at 000000010000000001E446180000000002`,
    );
}

function withPlace(command: Command): Command {
  return command
    .addOption(pipelineOption())
    .option("--state-table <name>", "default: $TRIBUTARY_STATE_TABLE");
}

async function showHolds({ json, ...place }: StatusOptions): Promise<void> {
  const store = await storeOf(place, "capture status");
  const [holds, putAside, wanted] = await Promise.all([
    readHolds(store),
    readAsides(store),
    readWantedAsides(store),
  ]);
  if (json) say(JSON.stringify({ holds, putAside, wanted }));
  else {
    if (holds.length === 0) say("No topic is held.");
    for (const hold of holds) say(...linesOf(hold), "");
    for (const { table, position, code, reread } of putAside)
      say(`${table}: the change at ${position} was put aside (${code})${reread ? "" : ", to be read again"}`);
    for (const position of wanted) say(`the change at ${position} is to be put aside when it comes`);
  }
  if (holds.length > 0) process.exitCode = 1;
}

function linesOf({ topic, reason, since, from, last, changes, bytes, released }: StoredHold): string[] {
  return [
    `${topic} is held since ${new Date(since).toISOString()} (${reason.code})${released ? ", to be released" : ""}`,
    `  ${reason.message}`,
    `  stored: ${changes} changes, ${bytes} bytes, from ${from} to ${last}`,
    `  what to do: ${reason.remedy}`,
    `              then: tributary capture release --topic ${topic}`,
    `              or, to go on without this one change: tributary capture dead-letter --at ${reason.position}`,
  ];
}

async function releaseTopic({ topic, ...place }: ReleaseOptions): Promise<void> {
  await wantRelease(await storeOf(place, "capture release"), topic);
  say(`The capture task releases ${topic} in a moment, or when it starts. See: tributary capture status`);
}

async function putAside({ at, ...place }: PutAsideOptions): Promise<void> {
  if (!isPosition(at)) {
    const remedy = "write the position that the error names, and `tributary capture status`: 34 characters";
    throw new ConfigurationError("The command line", [{ path: "--at", value: at, remedy }]);
  }
  const store = await storeOf(place, "capture dead-letter");
  await wantAside(store, at);
  const held = (await readHolds(store)).find(({ reason }) => reason.position === at);
  if (held) await wantRelease(store, held.topic);
  say(
    `The capture task puts the change at ${at} aside when it comes to it${held ? `, and releases ${held.topic}` : ""}. See: tributary capture status`,
  );
}

async function storeOf(
  { pipeline: file, stateTable = process.env.TRIBUTARY_STATE_TABLE }: Place,
  verb: string,
): Promise<HoldStore> {
  const { name } = requireLog(await readDefinition(file), verb);
  if (!stateTable) {
    const problem = { path: "--state-table", value: undefined, remedy: "name the pipeline's state table" };
    throw new ConfigurationError("The command line", [problem]);
  }
  const { signal } = new AbortController();
  return { dynamodb: dynamodbClient(), table: stateTable, pipeline: name, signal };
}
