import { setTimeout as sleep } from "node:timers/promises";
import type { DynamoDBClient } from "@aws-sdk/client-dynamodb";
import { ConsumerTable } from "../consume/fence/consumer-table.ts";
import { GROUP_SIZE, readPartition } from "../consume/fence/fence-item.ts";
import { ParkedKeys } from "../consume/hold/parked-keys.ts";
import { ParkedLists } from "../consume/hold/parked-lists.ts";
import type { ConsumerDefinition } from "../definition/definition.ts";
import type { Log } from "../log.ts";
import { type NewestChange, readCaptureReports } from "../state/capture-report.ts";
import { readPauses } from "../state/pauses.ts";
import { persistentTable, type StatePlace } from "../state/persistent-table.ts";
import { fenceKey } from "../state/state-key.ts";
import type { StateItem } from "../state/state-table.ts";
import { metricsLine } from "../telemetry/emf.ts";
import { DIMENSION, dimensionsOf, type MeasuredPipeline, STANDING_METRIC } from "../telemetry/metrics.ts";
import { lagOf, type PartitionProgress } from "./consumer-lag.ts";

/*
 * A consumer that is not invoked (its mapping is disabled, or its permissions are gone) writes no metrics, and its dead letters expire
 * in SQS. So the capture task reads each consumer's progress from the state table and writes it as gauges, which end when the state does.
 * The cost is bounded: one page of each consumer's checkpoints a minute (1 MB, 256 read units; most take a few KB). Each further page
 * delays the next round by a minute.
 */

/** Between two rounds, in milliseconds, and as long again for each page beyond a consumer's first. */
export const ROUND_MS = 60_000;
/** However much there is to read: `Unread` asks for a figure in three of twelve periods of five minutes. */
const LONGEST_WAIT_MS = 4 * 60_000;
/** Deadline for reading pauses and newest changes, in milliseconds. */
const DEADLINE_MS = 45_000;
/** Deadline for reading one consumer's state, in milliseconds: the consumers after it are read in any case. */
const CONSUMER_DEADLINE_MS = 20_000;

/** Dependencies of `ConsumerWatch`. */
export interface ConsumerWatchOptions extends MeasuredPipeline {
  readonly dynamodb: DynamoDBClient;
  /** The state table's name. */
  readonly table: string;
  readonly consumers: readonly Pick<ConsumerDefinition, "name" | "topics">[];
  readonly log: Log;
  readonly write: (line: string) => void;
  /** How long one consumer may take, in milliseconds; default 20 s. */
  readonly consumerDeadlineMs?: number;
}

/** A consumer's lag, parked keys and holds. */
interface Standing {
  /** Undefined where it is not known. */
  readonly lagMs: number | undefined;
  /** The failure instead where its lists cannot be read: its lag and holds are told without them. */
  readonly openKeys: number | { readonly failure: unknown };
  readonly openHolds: number;
  /** Pages of its checkpoints beyond the first. */
  readonly furtherPages: number;
}

/** The list of a partition's parked keys, or what names it. */
interface ParkedAt {
  readonly topic: string;
  readonly partition: number;
  readonly keys: string;
}

/** Writes a line of metrics for each consumer about once a minute. It disturbs nothing: what cannot be read is logged once, and read again in the next round. */
export class ConsumerWatch {
  readonly #options: ConsumerWatchOptions;
  /** By the name of the consumer: a list that was read once is not read again. */
  readonly #lists = new Map<string, ParkedLists>();
  #failed = false;

  constructor(options: ConsumerWatchOptions) {
    this.#options = options;
  }

  /** Begins, until the signal. Never throws. */
  start(signal: AbortSignal): void {
    void this.#run(signal);
  }

  /**
   * Reads every consumer, and writes a line for each that could be read. Returns the pages of checkpoints beyond each consumer's first.
   * Never throws.
   */
  async round(signal: AbortSignal, now = Date.now()): Promise<number> {
    const { dynamodb, table, pipeline, consumers } = this.#options;
    const { consumerDeadlineMs = CONSUMER_DEADLINE_MS } = this.#options;
    const within = (ms: number): StatePlace => ({
      ...{ dynamodb, table, pipeline, signal: AbortSignal.any([signal, AbortSignal.timeout(ms)]) },
    });
    const failures: unknown[] = [];
    let furtherPages = 0;
    try {
      const place = within(DEADLINE_MS);
      const [{ consumers: paused }, newest] = await Promise.all([readPauses(place, true), newestOf(place)]);
      for (const consumer of consumers) {
        try {
          const standing = await this.#standingOf(within(consumerDeadlineMs), consumer, newest, now);
          if (typeof standing.openKeys === "object") failures.push(standing.openKeys.failure);
          furtherPages += standing.furtherPages;
          this.#tell(consumer.name, standing, paused.has(consumer.name));
        } catch (error) {
          failures.push(error);
        }
      }
    } catch (error) {
      failures.push(error);
    }
    if (!signal.aborted) this.#log(failures[0]);
    return furtherPages;
  }

  async #run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const waitMs = Math.min(ROUND_MS * (1 + (await this.round(signal))), LONGEST_WAIT_MS);
      await sleep(waitMs, undefined, { signal, ref: false }).catch(() => {});
    }
  }

  #tell(consumer: string, { lagMs, openKeys, openHolds }: Standing, isPaused: boolean): void {
    const { write } = this.#options;
    const dimensions = dimensionsOf(this.#options, { [DIMENSION.consumer]: consumer });
    write(
      metricsLine("standing", dimensions, [
        // A pause has an alarm of its own.
        [STANDING_METRIC.lagMs, isPaused ? 0 : lagMs],
        [STANDING_METRIC.openKeys, typeof openKeys === "number" ? openKeys : undefined],
        [STANDING_METRIC.openHolds, openHolds],
      ]),
    );
  }

  /** @throws StateTableError, StateTableUnavailableError, FenceUnavailableError */
  async #standingOf(
    place: StatePlace,
    consumer: Pick<ConsumerDefinition, "name" | "topics">,
    newest: Readonly<Record<string, readonly NewestChange[]>>,
    now: number,
  ): Promise<Standing> {
    const { pk } = fenceKey({ pipeline: place.pipeline, consumer: consumer.name }, "", 0);
    const progress: PartitionProgress[] = [];
    const parked: ParkedAt[] = [];
    let [openHolds, pages] = [0, 0];
    for await (const items of persistentTable(place, true).pages({ pk, sk: "fence#" })) {
      pages++;
      for (const { topic, partition, stored } of items.flatMap(partitionsOf)) {
        // What is held waits for somebody, as openHolds says: a second failure shows by what is not even held.
        progress.push({ topic, partition, checkpoint: stored.hold?.intake.position ?? stored.position });
        if (stored.hold) openHolds++;
        if (stored.parked !== undefined) parked.push({ topic, partition, keys: stored.parked });
      }
    }
    const lag = await lagOf(consumer, progress, newest, { place, signal: place.signal, wall: now });
    const lagMs = lag.state === "behind" ? lag.forMs : lag.state === "caught up" ? 0 : undefined;
    const openKeys = await this.#openKeysOf(place, consumer.name, parked);
    return { lagMs, openKeys, openHolds, furtherPages: Math.max(0, pages - 1) };
  }

  async #openKeysOf(
    place: StatePlace,
    consumer: string,
    parked: readonly ParkedAt[],
  ): Promise<Standing["openKeys"]> {
    const lists = this.#listsOf(place, consumer);
    let open = 0;
    try {
      for (const { topic, partition, keys } of parked)
        open += ParkedKeys.parse(await lists.read({ topic, partition }, keys, place.signal)).size;
    } catch (failure) {
      return { failure };
    }
    return open;
  }

  #listsOf(place: StatePlace, consumer: string): ParkedLists {
    const known = this.#lists.get(consumer) ?? new ParkedLists(new ConsumerTable({ ...place, consumer }));
    this.#lists.set(consumer, known);
    return known;
  }

  /** Logs the first failure, until all could be read again. */
  #log(failure: unknown): void {
    if (failure !== undefined && !this.#failed)
      this.#options.log.warn(`what consumers stand at cannot be read: ${(failure as Error).name}`, {
        remedy:
          "It is read again. Until then the metrics of lag, open dead letters and holds stand still, and their alarms stay as they are.",
      });
    this.#failed = failure !== undefined;
  }
}

/** Returns by topic the newest changes of whichever capture task knows the latest. @throws StateTableError, StateTableUnavailableError */
async function newestOf(place: StatePlace): Promise<Record<string, readonly NewestChange[]>> {
  const newest: Record<string, readonly NewestChange[]> = {};
  for (const { report } of await readCaptureReports(place)) {
    for (const [topic, changes] of Object.entries(report?.newest ?? {})) {
      const [latest] = changes;
      if (latest && latest.at > (newest[topic]?.[0]?.at ?? Number.NEGATIVE_INFINITY)) newest[topic] = changes;
    }
  }
  return newest;
}

/** The partitions that a fence item has something of. */
function partitionsOf(item: StateItem) {
  const [, topic, group] = /^fence#(.*)#(\d+)$/.exec(item.sk?.S ?? "") ?? [];
  if (topic === undefined) return [];
  return Array.from({ length: GROUP_SIZE }, (_, i) => Number(group) * GROUP_SIZE + i).flatMap((partition) => {
    const stored = readPartition(item, partition);
    return stored.position === undefined && !stored.hold ? [] : [{ topic, partition, stored }];
  });
}
