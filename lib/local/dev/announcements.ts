import { commandPlace } from "../../change/command-place.ts";
import { withCommands } from "../../change/printed-command.ts";
import type { LogPipeline } from "../../source/postgres/definition.ts";
import type { Display } from "../display.ts";
import type { LocalAws } from "../host.ts";
import type { DevArguments } from "./arguments.ts";
import { type DevDatabase, placeOf } from "./database.ts";

/** Says before the start what is made on the database, and what becomes of it. */
export function announce(
  { source }: LogPipeline,
  database: DevDatabase,
  args: DevArguments,
  display: Display,
): void {
  display.say(`on ${database.place}: slot and publication ${source.slot}, for ${source.tables.join(", ")}`);
  if (!args.snapshot) display.say("  existing rows are not read (--snapshot reads them)");
  if (database.here) return;
  const end = args.keepSlot
    ? "they stay at the end (--keep-slot), and the server keeps WAL for the slot"
    : "they are dropped at the end; what changes until the next start is not seen (--keep-slot keeps them)";
  display.say(`  ${end}`);
  display.say(
    "  this server is not this machine's: the handlers get its real changes, and whatever they do is real",
  );
}

/** Says where the parts of a run are reached. */
export function sayEndpoints(
  { environment, resources }: LocalAws,
  { place, connection }: DevDatabase,
  display: Display,
): void {
  display.say(
    withCommands(
      "running; from another terminal in this folder the verbs speak to it: tributary status",
      commandPlace(),
    ),
  );
  display.say(`  database     ${place === "embedded" ? placeOf(connection) : place}`);
  display.say(`  DynamoDB     ${environment.AWS_ENDPOINT_URL_DYNAMODB}  table ${resources.stateTable}`);
  display.say(`  Kinesis      ${environment.AWS_ENDPOINT_URL_KINESIS}  stream ${resources.stream}`);
  for (const [consumer, url] of resources.deadLetterQueues)
    display.say(`  dead letters ${url}  of ${consumer}`);
}
