import { Command } from "commander";
import type { ConsumerMapping, MappingOutcome } from "../admin/event-source-mapping.ts";
import { consumerAtRest, pauseConsumer, resumeConsumer } from "../admin/pause-consumer.ts";
import { oldestUnapplied } from "../admin/retention.ts";
import { retentionLeft } from "../admin/retention-left.ts";
import { lambdaClient } from "../aws/clients.ts";
import { awsFailure } from "../aws/failure.ts";
import type { ConsumerDefinition, Pipeline } from "../definition/definition.ts";
import { pausedBy, resumeCommand } from "../state/pause.ts";
import { readPause } from "../state/pauses.ts";
import type { StatePlace } from "../state/persistent-table.ts";
import { durationInWords } from "./duration.ts";
import { byOption, operator, reasonOption } from "./operator.ts";
import {
  consumerOption,
  jsonOption,
  type PlaceOptions,
  placeOf,
  readPipeline,
  unknownConsumer,
  withPlace,
} from "./options.ts";
import { resourcesOf } from "./resources-of.ts";
import { note, say } from "./say.ts";

interface PauseOptions extends PlaceOptions {
  readonly consumer: string;
  readonly reason?: string;
  readonly by?: string;
  readonly wait: boolean;
  readonly json?: boolean;
}

/** Milliseconds that a pause waits to learn how far the consumer is behind. */
const LAG_MS = 5_000;

type ResumeOptions = Pick<PauseOptions, keyof PlaceOptions | "consumer" | "json">;

/** `tributary consumer pause` and `resume`. */
export function consumerPauseCommands(): Command[] {
  const pause = withPlace(
    new Command("pause").description("have a consumer apply nothing until it is resumed"),
  )
    .addOption(consumerOption().makeOptionMandatory())
    .addOption(reasonOption())
    .addOption(byOption("pauses"))
    .option("--no-wait", "do not wait until the invocations have ended that began before")
    .addOption(jsonOption("one line"))
    .action(pauseOne);
  const resume = withPlace(new Command("resume").description("have a paused consumer go on where it stopped"))
    .addOption(consumerOption().makeOptionMandatory())
    .addOption(jsonOption("one line"))
    .action(resumeOne);
  return [pause, resume];
}

async function pauseOne(options: PauseOptions): Promise<void> {
  const { consumer, pipeline, place } = await meant(options);
  const mapping = await mappingOf(pipeline, consumer, options);
  // A pause does not wait for what only sharpens its alarm.
  const soon = { ...place, signal: AbortSignal.any([place.signal, AbortSignal.timeout(LAG_MS)]) };
  const { retentionHours } = pipeline.stream;
  const oldestAt = await oldestUnapplied(soon, consumer, Date.now(), retentionHours).catch(() => undefined);
  const request = { by: operator(options.by), reason: options.reason, oldestAt };
  const { pause, completeAt, mapping: outcome } = await pauseConsumer(place, consumer, request, mapping);
  noteFailure(outcome);
  if (options.wait) {
    const waitMs = completeAt - Date.now();
    const until = new Date(completeAt).toISOString();
    note(
      `${consumer.name} is paused. Invocations that began before may still apply changes: waiting for ${durationInWords(waitMs)}, until ${until} (Ctrl-C leaves it paused)`,
    );
    const tellRedrive = () =>
      note("a redrive is at a call that takes longer: waiting for its end (Ctrl-C leaves it paused)");
    if (!(await consumerAtRest(place, consumer.name, { pause, completeAt }, tellRedrive))) {
      note(`somebody has resumed ${consumer.name} meanwhile: this pause has ended`);
      process.exitCode = 1;
      return;
    }
  }
  const retention = retentionLeft(pause.oldestAt ?? pause.since, retentionHours, Date.now());
  if (options.json) {
    const { id, ...told } = pause;
    say(JSON.stringify({ consumer: consumer.name, ...told, completeAt, retention }));
    return;
  }
  const end = new Date(Date.now() + retention.leftMs).toISOString();
  const bound = options.wait
    ? "Nothing of it takes effect any more."
    : `Invocations that began before may apply changes until ${new Date(completeAt).toISOString()}; a redrive under way ends with the call that it is at.`;
  say(
    `${consumer.name} is paused, ${pausedBy(pause)}. ${bound}`,
    `The oldest of its changes that wait in the stream is about ${durationInWords(retention.ageMs)} old. The stream keeps them for ${durationInWords(retentionHours * 3_600_000)}: resume it before ${end} (${durationInWords(retention.leftMs)} from now), or what is older is lost to it.`,
    `To go on: ${resumeCommand({ consumer: consumer.name })}`,
  );
}

async function resumeOne(options: ResumeOptions): Promise<void> {
  const { consumer, place, mapping } = await resumable(options);
  const { pause } = await resumeConsumer(place, consumer.name, mapping);
  const ms = pause === undefined ? undefined : Math.max(0, Date.now() - pause.since);
  if (options.json) {
    const { id: _, ...told } = pause ?? { id: "" };
    say(JSON.stringify({ consumer: consumer.name, ...told, pausedMs: ms }));
    return;
  }
  if (pause === undefined || ms === undefined)
    return say(
      `${consumer.name} was not paused; its event source mapping was disabled, and is enabled again.`,
    );
  say(
    `${consumer.name} goes on where it stopped. It was paused for ${durationInWords(ms)}, ${pausedBy(pause)}.`,
  );
}

/** Also one that has left the definition while it was paused: it would be paused when it comes back. @throws ConfigurationError with all that is wrong */
async function resumable(options: ResumeOptions) {
  const pipeline = await readPipeline(options.pipeline);
  const name = options.consumer;
  if (!pipeline.consumers.some((consumer) => consumer.name === name)) {
    // What is wrong with the place is told below, with the rest.
    const place = tried(() => placeOf(pipeline, options));
    // Its mapping may be gone with it, and what the pause knows of it lead nowhere.
    if (place && (await readPause(place, { consumer: name })))
      return { consumer: { name }, place, mapping: await mappingOf(pipeline, { name }, options) };
  }
  const { consumer, place } = await meant(options);
  return { consumer, place, mapping: await mappingOf(pipeline, consumer, options, place) };
}

function tried<T>(make: () => T): T | undefined {
  try {
    return make();
  } catch {
    return undefined;
  }
}

/** @throws ConfigurationError with all that is wrong */
async function meant(
  options: ResumeOptions,
): Promise<{ pipeline: Pipeline; consumer: ConsumerDefinition; place: StatePlace }> {
  const pipeline = await readPipeline(options.pipeline);
  const consumer = pipeline.consumers.find(({ name }) => name === options.consumer);
  const place = placeOf(pipeline, options, consumer ? [] : [unknownConsumer(options.consumer, pipeline)]);
  return { pipeline, consumer: consumer as ConsumerDefinition, place };
}

/** On AWS: as the place tells it, or as the pause does that disabled it. */
async function mappingOf(
  pipeline: Pipeline,
  { name }: Pick<ConsumerDefinition, "name">,
  options: PlaceOptions,
  paused?: StatePlace,
): Promise<ConsumerMapping | undefined> {
  const { consumers } = await resourcesOf(pipeline, options);
  const uuid = consumers[name]?.mapping ?? (paused && (await readPause(paused, { consumer: name }))?.mapping);
  return uuid === undefined ? undefined : { lambda: await lambdaClient(), uuid };
}

/** The pause holds without it. */
function noteFailure(outcome: MappingOutcome | undefined): void {
  if (outcome && "error" in outcome)
    note(
      `the event source mapping stays enabled: Lambda's UpdateEventSourceMapping: ${awsFailure(outcome.error)}. The pause holds all the same; its invocations do nothing, and cost a little`,
    );
}
