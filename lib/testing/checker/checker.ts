import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { type PositionText, START_OF_HISTORY } from "../../change/position.ts";
import { formatTable, type TableName } from "../../change/table-pattern.ts";
import type { ConsumerDefinition, Pipeline } from "../../definition/definition.ts";
import { type RouteTable, routeTables } from "../../definition/route.ts";
import {
  checkEffects,
  type Effect,
  type ExpectedEvent,
  type Findings,
  type InvocationTimes,
  type SinkPromise,
} from "./check.ts";
import { checkedTables, countMismatches, readRows } from "./checked-tables.ts";
import {
  checkPutAside,
  countEffects,
  expectedEvents,
  expectedLetter,
  notIn,
  ofConsumer,
} from "./expected.ts";
import { isPoisoned } from "./mischief.ts";
import checkedPipeline from "./pipeline.ts";
import { Rig } from "./rig.ts";
import type { RiggedConsumer } from "./rigged-consumer.ts";
import { holdsWithin, playRound } from "./round.ts";
import { changesBySlot, readSlotOfTables, type SlotChange, slotsOf } from "./slot-history.ts";
import { CHECKED_SCHEMA, CHECKED_TABLES } from "./tables.ts";
import { Truth } from "./truth.ts";
import { runWorkload } from "./workload.ts";

/** The checker's view of one consumer. */
export interface CheckedSink {
  readonly kind: SinkPromise;
  /** All effects so far, in the order in which they took place. */
  effects(): Promise<readonly Effect[]>;
  /** The invocations, by the names that the effects give them. Without it none has ended, as far as is known. */
  invocations?(): Promise<ReadonlyMap<string, InvocationTimes>>;
  /** Changes that the handler fails on for good: each must be in the dead letters, and have no effect. */
  poisoned?(position: PositionText): boolean;
}

/** A pipeline of your own to be checked, with its handlers. */
export interface CheckedPipeline {
  readonly definition: Pipeline;
  /** The file that exports the definition as default. */
  readonly file: string;
  /** SQL that makes the source tables. */
  readonly schema: string;
  /** Commits changes at least until `until` aborts: then the faults have ended. */
  readonly workload: (databaseUrl: string, seed: number, until: AbortSignal) => Promise<unknown>;
  /** By consumer; consumers that are not named run without being checked. */
  readonly sinks: Readonly<Record<string, CheckedSink>>;
  /** Variables of the handlers' processes. */
  readonly environment?: Readonly<Record<string, string>>;
}

/** Settings of `runChecker`. */
export interface CheckerOptions {
  readonly seed: number;
  /** Row changes of the checker's own workload. Default 3,000. */
  readonly changes?: number;
  /** Default: the checker's own tables, workload and three sinks. */
  readonly pipeline?: CheckedPipeline;
  /** Number of slots that the tables are spread over. Default: the definition's. */
  readonly slots?: number;
  /** Breaks things while the workload runs; whatever it broke must be whole when it resolves. */
  readonly faults?: (rig: Rig, signal: AbortSignal) => Promise<unknown>;
  /** Changes a second of the checker's own workload while faults are injected. Default 200. */
  readonly changesPerSecond?: number;
  /** Time that everything has to arrive after the faults' end. Default 60 s. */
  readonly recoverMs?: number;
  readonly onLog?: (line: string) => void;
}

/** Findings about a whole run. */
export interface Verdict {
  /** By consumer. */
  readonly sinks: Readonly<Record<string, Findings>>;
  /** Rows that the position-comparing sink holds otherwise than the tables do: only for the checker's own tables. */
  readonly rowMismatches: number;
  /** Changes that a slot had confirmed before Kinesis had acknowledged them, in words. */
  readonly confirmedTooEarly: readonly string[];
  /** From the faults' end until every change was seen; undefined: not within `recoverMs`. */
  readonly secondsToRecover: number | undefined;
  /** Nothing lost, extra, out of order or doubled, and everything in time. */
  readonly ok: boolean;
}

/**
 * Runs a pipeline on this machine under a random workload and faults, and holds what its handlers did against what
 * PostgreSQL says was committed.
 *
 * @example
 * const verdict = await runChecker({
 *   seed: 7,
 *   pipeline: {
 *     definition, file: "cdk/pipeline.ts", schema: "CREATE TABLE orders (…)", workload,
 *     sinks: { orders: { kind: "append", effects: () => readMyEffects() } },
 *   },
 *   faults: async (rig) => rig.capture.kill(),
 * });
 * if (!verdict.ok) console.error(verdict);
 */
export async function runChecker(options: CheckerOptions): Promise<Verdict> {
  const trial = await Trial.start(options);
  try {
    return await trial.round(options);
  } finally {
    await trial.stop();
  }
}

/** One round of a trial. */
export type RoundOptions = Pick<
  CheckerOptions,
  "seed" | "changes" | "changesPerSecond" | "faults" | "recoverMs"
>;

const DEFAULT_CHANGES = 3_000;
const DEFAULT_RECOVER_MS = 60_000;
const ROUND_DEADLINE_MS = 60 * 60_000;
/** While faults are injected the workload must last, not flood: what piles up must be gone after 60 s. */
const CHANGES_PER_SECOND = 200;
const EPOCH = 1;
const KINDS: Readonly<Record<string, SinkPromise>> = {
  positions: "positions",
  once: "once",
  parked: "parked",
};
const ROWS_EVERY_MS = 500;
const REDRIVE_EVERY_MS = 1_000;

/** A running pipeline under the checker: several rounds of workload and faults, each checked with all before it. */
export class Trial {
  readonly rig: Rig;
  readonly #truth: Truth;
  readonly #pipeline: CheckedPipeline | undefined;
  readonly #route: RouteTable;
  readonly #tables: ReadonlyMap<string, TableName>;

  private constructor(
    rig: Rig,
    truth: Truth,
    tables: readonly TableName[],
    pipeline: CheckedPipeline | undefined,
  ) {
    this.rig = rig;
    this.#truth = truth;
    this.#pipeline = pipeline;
    this.#route = routeTables(rig.definition);
    this.#tables = new Map(tables.map((table) => [formatTable(table), table]));
  }

  /**
   * Starts the pipeline; from here on the truth is kept.
   * @throws ConfigurationError where the definition cannot have so many slots.
   */
  static async start(options: Pick<CheckerOptions, "pipeline" | "slots" | "onLog">): Promise<Trial> {
    const { pipeline } = options;
    const rig = await Rig.start({
      definition: pipeline?.definition ?? checkedPipeline,
      definitionFile: pipeline?.file ?? fileURLToPath(new URL("./pipeline.ts", import.meta.url)),
      schema: pipeline?.schema ?? CHECKED_SCHEMA,
      ...(options.slots === undefined ? {} : { slots: options.slots }),
      ...(pipeline?.environment ? { environment: pipeline.environment } : {}),
      ...(options.onLog ? { onLog: options.onLog } : {}),
    });
    try {
      const tables = await checkedTables(rig.databaseUrl, rig.definition);
      const truth = await Truth.begin({ databaseUrl: rig.databaseUrl, name: "checker_truth", tables });
      return new Trial(rig, truth, tables, pipeline);
    } catch (error) {
      await rig.stop();
      throw error;
    }
  }

  /** Workload and faults side by side, then time to recover, then the verdict over everything so far. */
  async round(options: RoundOptions): Promise<Verdict> {
    const { seed, changes = DEFAULT_CHANGES, recoverMs = DEFAULT_RECOVER_MS } = options;
    const signal = AbortSignal.timeout(ROUND_DEADLINE_MS);
    const before = (await this.#changes()).length;
    const { databaseUrl } = this.rig;
    const { changesPerSecond = CHANGES_PER_SECOND, faults } = options;
    const pace = faults ? { changesPerSecond } : {};
    const ended = await playRound({
      workload: (until) =>
        this.#pipeline
          ? this.#pipeline.workload(databaseUrl, seed, until)
          : runWorkload({ databaseUrl, seed, changes, until, ...pace, signal }),
      faults: faults && (() => faults(this.rig, signal)),
      beside: (until) => this.#redriveUntil(until),
    });
    await this.rig.mended(true);
    const all = await this.#changes();
    const arrived = await this.#arrived(all.slice(before), recoverMs);
    const seconds = arrived ? (performance.now() - ended) / 1000 : undefined;
    await this.rig.mended(false);
    return await this.#verdict(all, seconds);
  }

  /**
   * The last round of a trial, in which history begins anew: the truth about each change is gone with the server's, and what the sink
   * that compares positions holds in the end is checked alone.
   */
  async roundAnew(options: RoundOptions): Promise<Verdict> {
    const { seed, changes = DEFAULT_CHANGES, recoverMs = DEFAULT_RECOVER_MS, faults } = options;
    const { changesPerSecond = CHANGES_PER_SECOND } = options;
    const signal = AbortSignal.timeout(ROUND_DEADLINE_MS);
    const { databaseUrl } = this.rig;
    await playRound({
      workload: (until) => runWorkload({ databaseUrl, seed, changes, until, changesPerSecond, signal }),
      faults: faults && (() => faults(this.rig, signal)),
    });
    await this.rig.mended(true);
    const ended = performance.now();
    let rowMismatches = Number.NaN;
    const noMismatch = async () => {
      rowMismatches = await this.#rowMismatches();
      return rowMismatches === 0;
    };
    await holdsWithin(noMismatch, { deadlineMs: recoverMs, everyMs: ROWS_EVERY_MS, hopeless: this.#gaveUp });
    const seconds = rowMismatches === 0 ? (performance.now() - ended) / 1000 : undefined;
    const ok = rowMismatches === 0;
    return { sinks: {}, rowMismatches, confirmedTooEarly: [], secondsToRecover: seconds, ok };
  }

  async stop(): Promise<void> {
    await this.rig.stop();
  }

  /** While faults are injected, parked changes are redriven, now with the mended handler, now with the broken one. */
  async #redriveUntil(until: AbortSignal): Promise<void> {
    for (let mended = true; !until.aborted; mended = !mended) {
      await this.rig.mended(mended);
      for (const { definition } of this.#parking()) await this.rig.redrive(definition.name);
      await delay(REDRIVE_EVERY_MS, undefined, { signal: until }).catch(() => {});
    }
  }

  /** Consumers of the checker's own that park. */
  #parking(): RiggedConsumer[] {
    if (this.#pipeline) return [];
    return this.rig.consumers.filter(({ definition }) => definition.poison === "park");
  }

  /** Returns the committed changes, by the slot that gives each. */
  async #changes(): Promise<readonly SlotChange[]> {
    const { databaseUrl, definition } = this.rig;
    const [only = ""] = slotsOf(definition);
    for (;;) {
      const slotOfTable = await readSlotOfTables(databaseUrl, definition);
      const changes = await this.#truth.read();
      const now = await readSlotOfTables(databaseUrl, definition);
      // A table that moved in between: the truth does not tell yet, or the publications did not.
      if ([...now].some(([table, slot]) => slotOfTable.get(table) !== slot)) continue;
      return changesBySlot(changes, slotOfTable, this.#truth.moves, only);
    }
  }

  /** Waits until every consumer has seen these changes and no invocation is under way. */
  async #arrived(changes: readonly SlotChange[], deadlineMs: number): Promise<boolean> {
    const deadline = performance.now() + deadlineMs;
    const remaining = () => ({
      deadlineMs: deadline - performance.now(),
      everyMs: 100,
      hopeless: this.#gaveUp,
    });
    const events = this.#events(changes);
    const first = events[0]?.position ?? START_OF_HISTORY;
    const parking = this.#parking();
    for (const consumer of this.rig.consumers) {
      const { name } = consumer.definition;
      const due = countEffects(this.#applied(consumer.definition, events));
      const poisoned = this.#poisoned(consumer.definition, events);
      let redriven = performance.now();
      const arrived = async () => {
        if ((await this.#seen(name, first)) >= due && this.rig.idle()) {
          if (poisoned.length === 0) return true;
          if (notIn(await this.rig.deadLetters(name), poisoned).length === 0) return true;
        }
        if (parking.includes(consumer) && performance.now() - redriven > REDRIVE_EVERY_MS) {
          await this.rig.redrive(name);
          redriven = performance.now();
        }
        return false;
      };
      if (!(await holdsWithin(arrived, remaining()))) return false;
    }
    // A row that is read again after its key changed comes behind the changes. Rows that stay different are told by their number.
    if (!this.#pipeline) await holdsWithin(async () => (await this.#rowMismatches()) === 0, remaining());
    return true;
  }

  /** True if a capture task waits for an operator: then nothing more arrives. */
  readonly #gaveUp = () => this.rig.captures.some(({ gaveUp }) => gaveUp);

  /** Different changes that a consumer has seen, from a position on. */
  async #seen(consumer: string, from: PositionText): Promise<number> {
    const { sinks } = this.#pipeline ?? {};
    if (!sinks) return await this.rig.sinks.seen(consumer, from);
    const effects = (await sinks[consumer]?.effects()) ?? [];
    return new Set(
      effects.filter((e) => e.position >= from).map((e) => `${e.topic}/${e.partition}/${e.position}`),
    ).size;
  }

  async #verdict(changes: readonly SlotChange[], seconds: number | undefined): Promise<Verdict> {
    const events = this.#events(changes);
    const sinks: Record<string, Findings> = {};
    for (const { definition } of this.rig.consumers) {
      const sink = this.#sink(definition.name);
      if (!sink) continue;
      const invocations = (await sink.invocations?.()) ?? new Map();
      const effects = await sink.effects();
      const applied = this.#applied(definition, events);
      const findings = checkEffects(sink.kind, applied, effects, invocations, seconds !== undefined);
      const poisoned = this.#poisoned(definition, events);
      const unlettered =
        poisoned.length === 0 ? [] : notIn(await this.rig.deadLetters(definition.name), poisoned);
      sinks[definition.name] = {
        ...findings,
        lost: findings.lost + unlettered.length,
        examples: [...findings.examples, ...unlettered.map((id) => `lost: ${id}: not in the dead letters`)],
      };
    }
    const aside = await this.#putAside(changes);
    if (aside) sinks["changes put aside"] = aside;
    const confirmedTooEarly = this.rig.confirmations.violations(
      changes.map((change) => ({
        ...{ slot: change.slot, endLsn: change.endLsn },
        events: this.#events([change]),
      })),
    );
    const rowMismatches = this.#pipeline ? 0 : await this.#rowMismatches();
    const clean = Object.values(sinks).every(
      ({ lost, extra, outOfOrder, duplicates }) => lost + extra + outOfOrder + duplicates === 0,
    );
    const ok = clean && rowMismatches === 0 && confirmedTooEarly.length === 0 && seconds !== undefined;
    return { sinks, rowMismatches, confirmedTooEarly, secondsToRecover: seconds, ok };
  }

  /** Holds capture's dead letters against the changes that no event can be made of; undefined where there are none of both. */
  async #putAside(changes: readonly SlotChange[]): Promise<Findings | undefined> {
    const found = await this.rig.putAside();
    const due = new Set(
      changes
        .filter(({ undecodable }) => undecodable)
        .map((change) => expectedLetter(change, this.#route, (name) => this.#tableOf(name), EPOCH)),
    );
    return due.size + found.size === 0 ? undefined : checkPutAside(due, found);
  }

  #sink(consumer: string): CheckedSink | undefined {
    if (this.#pipeline) return this.#pipeline.sinks[consumer];
    const kind = KINDS[consumer] ?? "append";
    const { sinks } = this.rig;
    return {
      kind,
      effects: () => sinks.effects(consumer),
      invocations: () => sinks.invocations(),
      poisoned: (position) => consumer === "dead-letters" && isPoisoned(position),
    };
  }

  #applied(definition: ConsumerDefinition, events: readonly ExpectedEvent[]): ExpectedEvent[] {
    const sink = this.#sink(definition.name);
    return ofConsumer(definition, events).filter(({ position }) => !sink?.poisoned?.(position));
  }

  #poisoned(definition: ConsumerDefinition, events: readonly ExpectedEvent[]): ExpectedEvent[] {
    const sink = this.#sink(definition.name);
    return ofConsumer(definition, events).filter(({ position }) => sink?.poisoned?.(position));
  }

  async #rowMismatches(): Promise<number> {
    const [source, held] = await Promise.all([
      readRows(this.rig.databaseUrl, CHECKED_TABLES),
      this.rig.sinks.rows(),
    ]);
    return countMismatches(source, held);
  }

  #events(changes: readonly SlotChange[]): ExpectedEvent[] {
    return changes.flatMap((change) =>
      expectedEvents(change, this.#route, (name) => this.#tableOf(name), EPOCH),
    );
  }

  #tableOf(name: string): TableName {
    const table = this.#tables.get(name);
    if (!table) throw new Error(`${name} was not there when the checker began`);
    return table;
  }
}
