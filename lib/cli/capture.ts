import { Command } from "commander";
import { dynamodbClient } from "../aws.ts";
import { readDefinition } from "../definition-file.ts";
import { ConfigurationError } from "../errors.ts";
import { requireLog } from "../pipeline.ts";
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
  return new Command("capture")
    .description("topics that the capture task holds: status, release")
    .addCommand(status)
    .addCommand(release)
    .addHelpText(
      "after",
      `
A change that cannot become an event holds its topic: from there on the topic's changes are stored in order, and all other
topics go on. Correct what the status names, then release it: the stored changes go into the stream before newer ones.

  tributary capture status
  tributary capture release --topic shop.public.orders`,
    );
}

function withPlace(command: Command): Command {
  return command
    .addOption(pipelineOption())
    .option("--state-table <name>", "default: $TRIBUTARY_STATE_TABLE");
}

async function showHolds({ json, ...place }: StatusOptions): Promise<void> {
  const holds = await readHolds(await storeOf(place, "capture status"));
  if (json) say(JSON.stringify({ holds }));
  else if (holds.length === 0) say("No topic is held.");
  else for (const hold of holds) say(...linesOf(hold), "");
  if (holds.length > 0) process.exitCode = 1;
}

function linesOf({ topic, reason, since, from, last, changes, bytes, released }: StoredHold): string[] {
  return [
    `${topic} is held since ${new Date(since).toISOString()} (${reason.code})${released ? ", to be released" : ""}`,
    `  ${reason.message}`,
    `  stored: ${changes} changes, ${bytes} bytes, from ${from} to ${last}`,
    `  what to do: ${reason.remedy}`,
    `              then: tributary capture release --topic ${topic}`,
  ];
}

async function releaseTopic({ topic, ...place }: ReleaseOptions): Promise<void> {
  await wantRelease(await storeOf(place, "capture release"), topic);
  say(`The capture task releases ${topic} in a moment, or when it starts. See: tributary capture status`);
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
