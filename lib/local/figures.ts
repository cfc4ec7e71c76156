import type { LocalHost } from "./host.ts";
import type { LiveFigures } from "./live-view.ts";
import { Meter } from "./meter.ts";
import type { WorkloadProgress } from "./shop/workload.ts";

/** The figures that the host does not count itself. */
export interface FiguresOptions {
  readonly pipeline: string;
  readonly source: string;
  readonly workload?: Readonly<WorkloadProgress>;
  /** Changes by table and operation, where a consumer prints them. */
  readonly tables?: ReadonlyMap<string, Readonly<Record<string, number>>>;
  readonly hints: readonly string[];
  readonly log: readonly string[];
}

const SAMPLE_MS = 1_000;

/** Samples a running host once a second and gives the figures of the moment. */
export class FiguresSampler implements Disposable {
  readonly #host: LocalHost;
  readonly #options: FiguresOptions;
  readonly #startedMs = performance.now();
  readonly #workload = new Meter();
  readonly #capture = new Meter();
  readonly #consumers: ReadonlyMap<string, Meter>;
  readonly #timer: NodeJS.Timeout;

  constructor(host: LocalHost, options: FiguresOptions) {
    this.#host = host;
    this.#options = options;
    this.#consumers = new Map(host.consumers.map(({ name }) => [name, new Meter()]));
    this.#sample();
    this.#timer = setInterval(() => this.#sample(), SAMPLE_MS);
  }

  get figures(): LiveFigures {
    const { pipeline, source, workload, tables, hints, log } = this.#options;
    const { capture, consumers } = this.#host;
    return {
      pipeline,
      source,
      hints,
      log,
      upMs: performance.now() - this.#startedMs,
      workload: workload && { ...workload, rate: this.#workload.rate },
      backfills: capture.figures.backfills,
      capture: { ...capture.figures, rates: this.#capture.rates, rate: this.#capture.rate },
      consumers: consumers.map(({ name, counts }) => {
        const meter = this.#consumers.get(name);
        return { name, ...counts, rates: meter?.rates ?? [], rate: meter?.rate ?? 0 };
      }),
      tables: [...(tables ?? [])].map(([table, counts]) => ({ table, counts })),
    };
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  #sample(): void {
    const now = performance.now();
    this.#workload.sample(this.#options.workload?.changes ?? 0, now);
    this.#capture.sample(this.#host.capture.figures.changes, now);
    for (const { name, counts } of this.#host.consumers)
      this.#consumers.get(name)?.sample(counts.applied, now);
  }
}
