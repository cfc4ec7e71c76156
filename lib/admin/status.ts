import type { DynamoDBClient } from "@aws-sdk/client-dynamodb";
import type { SQSClient } from "@aws-sdk/client-sqs";
import { lagOf } from "../capture/consumer-lag.ts";
import { TributaryError } from "../change/tributary-error.ts";
import type { Pipeline } from "../definition/definition.ts";
import { sourceKind } from "../source/index.ts";
import { readBackfills } from "../state/backfills.ts";
import { readLease } from "../state/capture-liveness.ts";
import { readCaptureRecord } from "../state/capture-record.ts";
import { type CaptureReport, readCaptureReports } from "../state/capture-report.ts";
import { readPauses } from "../state/pauses.ts";
import type { StatePlace } from "../state/persistent-table.ts";
import { captureStatus } from "./capture.ts";
import { Sightings } from "./capture-standing.ts";
import { consumerStatus } from "./consumer-status.ts";
import type { PipelineStatus, UnknownPart } from "./pipeline-status.ts";
import { isMissingQueue, queueDepth } from "./queue-depth.ts";
import type { PipelineResources } from "./resources.ts";
import { retentionLeft } from "./retention-left.ts";
import { captureOf, newestOf, pausingOf, summaryOf, withoutTasks } from "./status-parts.ts";
import { problemsOf } from "./status-problems.ts";
import { capturedTables } from "./status-tables.ts";
import { watchedReports } from "./watched-reports.ts";

/** Place and means of a look at a pipeline. */
export interface StatusOptions {
  readonly resources: PipelineResources;
  readonly pipeline: Pipeline;
  readonly dynamodb: DynamoDBClient;
  /** Without it, the messages of queues are not counted. */
  readonly sqs?: SQSClient | undefined;
  /** What earlier looks have seen; hand in the same one each time. */
  readonly sightings?: Sightings;
  readonly signal: AbortSignal;
  /**
   * True to watch a task that seems silent by the clocks for a moment longer than its reports are apart, before it is believed to be;
   * default true. Whoever looks again and again with the same `sightings` need not wait.
   */
  readonly patient?: boolean;
  /** Told what is waited for. */
  readonly onWait?: (line: string) => void;
}

/** Each part is given up after this, in milliseconds. */
export const PART_DEADLINE_MS = 10_000;

/**
 * Looks at a pipeline: its capture tasks by their own reports, its tables, its consumers. Reads the state table, and the queues where
 * they are known; asks neither the database nor the stream. What cannot be read in 10 s is unknown, with the reason.
 *
 * @example
 * const { healthy, problems } = await pipelineStatus({ resources, pipeline, dynamodb: new DynamoDBClient(), signal });
 * if (!healthy) for (const { message, remedy } of problems) console.error(message, remedy);
 *
 * @throws the signal's reason
 */
export async function pipelineStatus(options: StatusOptions): Promise<PipelineStatus> {
  const { resources, pipeline, dynamodb, signal, sightings = new Sightings() } = options;
  const parts = new Parts(signal);
  const place = (until: AbortSignal): StatePlace => ({
    ...{ dynamodb, table: resources.stateTable, pipeline: pipeline.name, signal: until },
  });
  const slots = sourceKind(pipeline.source).tasks(pipeline.source);
  const depthOf = (url: string | undefined, name: string, needed: boolean) => {
    const { sqs } = options;
    if (!sqs || url === undefined) return undefined;
    const isNeeded = (error: unknown) => needed || isMissingQueue(error);
    return parts.read(name, isNeeded, (until) => queueDepth(sqs, url, until));
  };
  const [reports, records, leases, capture, backfills, pauses, captureDeadLetters, consumers] =
    await Promise.all([
      parts.read("reports of capture tasks", true, (until) => readCaptureReports(place(until))),
      parts.read("records of capture", true, (until) =>
        Promise.all(slots.map((slot) => readCaptureRecord({ ...place(until), slot }))),
      ),
      parts.read("leases of capture", true, (until) =>
        Promise.all(slots.map((slot) => readLease({ ...place(until), slot }))),
      ),
      parts.read("held topics", true, (until) => captureStatus(place(until), pipeline)),
      parts.read("backfills", true, (until) => readBackfills(place(until))),
      parts.read("pauses", true, (until) => readPauses(place(until))),
      depthOf(resources.captureDeadLetters, "dead-letter queue of capture", true),
      Promise.all(
        pipeline.consumers.map(async (consumer) => {
          const { name } = consumer;
          const [partitions, messages] = await Promise.all([
            parts.read(`consumer ${name}`, true, (until) =>
              consumerStatus({ ...place(until), consumer: name }, until),
            ),
            // The state table knows the keys that wait for dead letters: the queue alone tells nothing unhealthy.
            depthOf(resources.consumers[name]?.deadLetterQueue, `dead-letter queue of ${name}`, false),
          ]);
          return { consumer, partitions, messages };
        }),
      ),
    ]);
  const seen =
    reports &&
    (await watchedReports(reports, {
      ...{ sightings, signal, patient: options.patient, onWait: options.onWait },
      again: () => parts.read("reports of capture tasks", true, (until) => readCaptureReports(place(until))),
    }));
  const wall = Date.now();
  const isAlive = (report: CaptureReport) => sightings.isAlive(report, performance.now(), wall);
  const newest = seen && newestOf(seen, isAlive, wall);
  const summaries = await Promise.all(
    consumers.map(async ({ consumer, partitions, messages }) => {
      const lag = await parts.read(`lag of consumer ${consumer.name}`, true, (until) =>
        lagOf(consumer, partitions, newest, { place: place(until), signal: until, wall }),
      );
      const pause = pauses?.consumers.get(consumer.name);
      // By the measure of the alarm PauseRetention.
      const retention =
        pause && retentionLeft(pause.oldestAt ?? pause.since, pipeline.stream.retentionHours, wall);
      return summaryOf(consumer, partitions, { lag, paused: pausingOf(pause), retention, messages });
    }),
  );
  const facts = {
    ...{ pipeline: pipeline.name, place: resources.place, at: new Date(wall).toISOString() },
    captures: slots.map((slot, i) => {
      const read = { reports: seen, record: records?.[i], leases, pause: pauses?.capture };
      return captureOf(slot, pipeline, { ...read, lease: leases?.[i], isAlive, wall });
    }),
    tables: records && capturedTables(pipeline, records, backfills),
    capture: capture && withoutTasks(capture),
    captureDeadLetters: await captureDeadLetters,
    consumers: summaries,
    unknown: parts.unknown,
  };
  const problems = problemsOf(facts, resources);
  const healthy =
    problems.every(({ severity }) => severity === "note") && facts.unknown.every(({ needed }) => !needed);
  return { ...facts, problems, healthy };
}

/** Reads parts side by side, each with a deadline, and keeps what could not be read. */
class Parts {
  readonly unknown: UnknownPart[] = [];
  readonly #signal: AbortSignal;

  constructor(signal: AbortSignal) {
    this.#signal = signal;
  }

  /** @throws the signal's reason, and nothing else */
  async read<T>(
    part: string,
    needed: boolean | ((error: unknown) => boolean),
    read: (until: AbortSignal) => Promise<T>,
  ): Promise<T | undefined> {
    const until = AbortSignal.any([this.#signal, AbortSignal.timeout(PART_DEADLINE_MS)]);
    // Some calls take no signal for a request that is under way.
    const { promise: late, reject } = Promise.withResolvers<never>();
    const giveUp = () => reject(until.reason);
    until.addEventListener("abort", giveUp, { once: true });
    try {
      return await Promise.race([read(until), late]);
    } catch (error) {
      this.#signal.throwIfAborted();
      const reason = until.aborted ? `no answer within ${PART_DEADLINE_MS / 1000} s` : reasonOf(error);
      this.unknown.push({
        ...{ part, reason, needed: typeof needed === "boolean" ? needed : needed(error) },
        ...(isMissingQueue(error) && { isMissing: true }),
      });
      return undefined;
    } finally {
      until.removeEventListener("abort", giveUp);
    }
  }
}

function reasonOf(error: unknown): string {
  const { name, message } = error as Error;
  return error instanceof TributaryError ? message : `${name}: ${message}`;
}
