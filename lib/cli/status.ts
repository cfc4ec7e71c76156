import { setTimeout as delay } from "node:timers/promises";
import { styleText } from "node:util";
import { Command } from "commander";
import { Sightings } from "../admin/capture-standing.ts";
import type { PipelineStatus } from "../admin/pipeline-status.ts";
import { pipelineStatus } from "../admin/status.ts";
import { dynamodbClient, sqsClient } from "../aws/clients.ts";
import { commandPlace } from "../change/command-place.ts";
import { withCommands } from "../change/printed-command.ts";
import { abortOnSignals } from "../local/stop-signal.ts";
import { jsonOption, type PlaceOptions, readPipeline, withPlace } from "./options.ts";
import { resourcesOf } from "./resources-of.ts";
import { note, say } from "./say.ts";
import { type Paint, statusLines } from "./status-lines.ts";

interface StatusOptions extends PlaceOptions {
  readonly watch?: boolean;
  readonly json?: boolean;
}

/** Time between two looks of `--watch`. */
const WATCH_MS = 3_000;
/** On a narrower terminal wrapping would leave a word a line. */
const LEAST_WIDTH = 40;

/** `tributary status`: how capture, tables and consumers of a pipeline stand. */
export function statusCommand(): Command {
  return withPlace(
    new Command("status").description("how a pipeline stands: capture, tables, consumers, and what to do"),
  )
    .option("--watch", "again every 3 seconds, until Ctrl-C")
    .addOption(jsonOption("one line for each look"))
    .addHelpText(
      "after",
      `
Exit code 0: healthy, 1: something needs a person or could not be read. It reads the state table, where capture tasks report about
themselves every 10 s, and the dead-letter queues that are known; it asks neither the database nor the stream.
The docs, Operations, say what counts as unhealthy.

  tributary status
  tributary status --watch
  tributary status --json | jq .problems`,
    )
    .action(showStatus);
}

async function showStatus({ watch = false, json = false, ...options }: StatusOptions): Promise<void> {
  const pipeline = await readPipeline(options.pipeline);
  const resources = await resourcesOf(pipeline, options);
  const stopping = new AbortController();
  abortOnSignals(stopping);
  process.stdout.on("error", () => stopping.abort());
  const { signal } = stopping;
  const [dynamodb, sqs] = [dynamodbClient(), sqsClient()];
  const sightings = new Sightings();
  const screen = new Screen(watch && !json && process.stdout.isTTY === true);
  const look = (patient: boolean) =>
    pipelineStatus({ ...{ resources, pipeline, dynamodb, sqs, sightings, patient, signal }, onWait: note });
  try {
    for (let first = true; ; first = false) {
      const status = typed(await look(!watch));
      process.exitCode = status.healthy ? 0 : 1;
      if (json) say(JSON.stringify(status));
      else screen.show(status, first);
      if (!watch) return;
      await delay(WATCH_MS, undefined, { signal });
    }
  } catch (error) {
    if (!signal.aborted) throw error;
    // Ctrl-C before the first answer: nothing says that it is healthy.
    process.exitCode ??= 1;
  } finally {
    screen.close();
    dynamodb.destroy();
    sqs.destroy();
  }
}

/** The status with its commands as they are typed here. */
function typed(status: PipelineStatus): PipelineStatus {
  const place = commandPlace();
  return {
    ...status,
    problems: status.problems.map(({ remedy, command, ...problem }) => ({
      ...problem,
      remedy: withCommands(remedy, place),
      command: command && withCommands(command, place),
    })),
  };
}

/** Where a status is printed: below the one before, or in its place on a terminal. */
class Screen {
  readonly #redraws: boolean;
  #last: readonly string[] = [];
  #open = false;

  constructor(redraws: boolean) {
    this.#redraws = redraws;
  }

  show(status: PipelineStatus, first: boolean): void {
    this.#last = statusLines(status, paint, widthOf(process.stdout));
    if (!this.#redraws) {
      say(...(first ? [] : [""]), ...this.#last);
      return;
    }
    const { rows = 24 } = process.stdout;
    const fitting =
      this.#last.length < rows
        ? this.#last
        : [...this.#last.slice(0, rows - 2), `… ${this.#last.length - rows + 2} more lines`];
    // Its own screen, so that what stood on the terminal stands there afterwards; no line is wrapped into the next.
    const open = this.#open ? "" : "\x1b[?1049h\x1b[?7l";
    this.#open = true;
    process.stdout.write(`${open}\x1b[H${fitting.map((line) => `${line}\x1b[K\n`).join("")}\x1b[J`);
  }

  /** Gives the terminal back as it was, with the last status on it. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    process.stdout.write("\x1b[?7h\x1b[?1049l");
    say(...this.#last);
  }
}

/** Undefined where lines are not wrapped: no terminal, or one that does not know how wide it is. */
function widthOf({ isTTY, columns }: typeof process.stdout): number | undefined {
  return isTTY && columns >= LEAST_WIDTH ? columns : undefined;
}

const paint: Paint = (colour, text) => styleText(colour, text, { stream: process.stdout });
