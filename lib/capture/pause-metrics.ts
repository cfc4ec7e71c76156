import type { Pauses } from "../state/pauses.ts";
import { metricsLine } from "../telemetry/emf.ts";
import { DIMENSION, dimensionsOf, type MeasuredPipeline, PAUSE_METRIC } from "../telemetry/metrics.ts";

/** Dependencies of `PausePublisher`. */
export interface PausePublisherOptions extends MeasuredPipeline {
  readonly retentionHours: number;
  /** Between two lines, in seconds. */
  readonly seconds: number;
  readonly write: (line: string) => void;
}

/** Writes a line of metrics for each consumer that is paused: its own functions are not invoked, so the capture task tells. */
export class PausePublisher {
  readonly #options: PausePublisherOptions;
  #writtenAt: number | undefined;

  constructor(options: PausePublisherOptions) {
    this.#options = options;
  }

  /** Takes what is paused, and writes when it is time; the first time at once. */
  take({ consumers }: Pauses, now = Date.now()): void {
    const { retentionHours, seconds, write } = this.#options;
    if (this.#writtenAt !== undefined && now - this.#writtenAt < seconds * 1000) return;
    if (consumers.size > 0) this.#writtenAt = now;
    for (const [consumer, { since, oldestAt = since }] of consumers) {
      const used = Math.min(100, Math.max(0, (100 * (now - oldestAt)) / (retentionHours * 3_600_000)));
      const dimensions = dimensionsOf(this.#options, { [DIMENSION.consumer]: consumer });
      write(metricsLine("pause", dimensions, [[PAUSE_METRIC.retentionUsed, used]]));
    }
  }
}
