import { isControlEvent, readBackfillEnd } from "../../change/control-event.ts";
import type { ChangeEventJson, OperationCode } from "../../change/event.ts";
import { formatTable, type TableName, tablePattern } from "../../change/table-pattern.ts";
import { ConfigurationError } from "../../change/tributary-error.ts";
import { topicPattern } from "../../definition/topic-pattern.ts";
import type { AnyEvent } from "../run/event.ts";
import type { Sweep } from "../run/sweep.ts";
import type { HandlerContext } from "./context.ts";
import { type Operation, operationOf } from "./operation.ts";
import type { RowSchema } from "./schema.ts";

/** The answer of a user's handler: nothing counts but failed indexes of `onBatch`. */
type HandlerOutcome = unknown;

interface Registered {
  /** As it was written. */
  readonly pattern: string;
  readonly matches: (topic: string, table: TableName) => boolean;
}

interface RegisteredForChanges extends Registered {
  readonly operations: ReadonlySet<Operation>;
  readonly row: RowSchema<unknown> | undefined;
}

/** A handler for one event. */
export interface SingleRegistration extends RegisteredForChanges {
  readonly kind: "single";
  /** Claims each event before the handler runs. */
  readonly claim: boolean;
  readonly handle: (event: AnyEvent, context: HandlerContext) => HandlerOutcome | Promise<HandlerOutcome>;
}

/** A handler for several consecutive events of a partition. */
export interface BatchRegistration extends RegisteredForChanges {
  readonly kind: "batch";
  readonly maxEvents: number;
  readonly handle: (
    events: readonly AnyEvent[],
    context: HandlerContext,
  ) => HandlerOutcome | Promise<HandlerOutcome>;
}

/** A handler for sweeps. */
export interface SweepRegistration extends Registered {
  readonly kind: "sweep";
  readonly handle: (sweep: Sweep, context: HandlerContext) => HandlerOutcome | Promise<HandlerOutcome>;
}

/** The handlers that a consumer registered, by kind. */
export type Registration = SingleRegistration | BatchRegistration | SweepRegistration;

/** Kinds of changes that a report names, at most. */
const MAX_UNMATCHED = 20;

/** The handlers of a consumer, in the order they were registered: the first that matches is the one. */
export class Registry {
  readonly #registrations: Registration[] = [];
  /** The registration that was found last: events of one table come one after the other. */
  #last: FoundRegistration | undefined;
  readonly #unmatched = new Set<string>();

  get size(): number {
    return this.#registrations.length;
  }

  /** The patterns of all handlers, each once. */
  get patterns(): readonly string[] {
    return [...new Set(this.#registrations.map(({ pattern }) => pattern))];
  }

  /** Changes that no handler matched so far, a few kinds: `public.orders update`. */
  get unmatched(): readonly string[] {
    return [...this.#unmatched];
  }

  add(registration: Registration): void {
    this.#registrations.push(registration);
    this.#last = undefined;
  }

  /** Returns whether a handler of this kind is registered. */
  has(kind: Registration["kind"]): boolean {
    return this.#registrations.some((registration) => registration.kind === kind);
  }

  /** Returns the same registry with each handler changed by `change`. */
  map(change: (registration: Registration) => Registration): Registry {
    const changed = new Registry();
    for (const registration of this.#registrations) changed.add(change(registration));
    return changed;
  }

  /** @throws RecordFormatError for a control event that is not of the format. */
  find(topic: string, wire: ChangeEventJson): Registration | undefined {
    if (isControlEvent(wire)) {
      if (!readBackfillEnd(wire)?.sweep) return undefined;
      return this.#registrations.find(
        (candidate) => candidate.kind === "sweep" && candidate.matches(topic, wire.source),
      );
    }
    const { schema, table } = wire.source;
    let last = this.#last;
    if (last?.topic !== topic || last.table !== table || last.schema !== schema) {
      const ofTable = this.#registrations.filter((candidate) => candidate.matches(topic, wire.source));
      last = { topic, schema, table, ofTable, byOperation: new Map() };
      this.#last = last;
    }
    const found = last.byOperation.get(wire.op);
    if (found !== undefined || last.byOperation.has(wire.op)) return found;
    const operation = operationOf(wire.op);
    const first = last.ofTable.find(
      (candidate) => candidate.kind !== "sweep" && candidate.operations.has(operation),
    );
    last.byOperation.set(wire.op, first);
    if (!first && this.#unmatched.size < MAX_UNMATCHED)
      this.#unmatched.add(`${formatTable(wire.source)} ${operation}`);
    return first;
  }
}

interface FoundRegistration extends TableName {
  readonly topic: string;
  readonly ofTable: readonly Registration[];
  readonly byOperation: Map<OperationCode, Registration | undefined>;
}

/**
 * A pattern of `on` and `onBatch`: of a topic (`shop.public.orders`, `*.orders`) or of a table (`public.orders`,
 * `public."Odd.Name"`); it matches when it matches either.
 * @throws ConfigurationError when it is neither.
 */
export function topicOrTable(pattern: string): (topic: string, table: TableName) => boolean {
  if (pattern === "" || /[\s]/.test(pattern.replaceAll(/"[^"]*"/g, ""))) {
    throw new ConfigurationError("The consumer", [
      {
        path: "on",
        value: pattern,
        remedy: "write a table such as public.orders, or a topic such as *.public.orders",
      },
    ]);
  }
  const ofTopic = topicPattern(pattern);
  const ofTable = asTablePattern(pattern);
  const known = new Map<string, boolean>();
  return (topic, table) => {
    const name = `${topic}\0${table.schema}\0${table.table}`;
    let matches = known.get(name);
    if (matches === undefined) {
      matches = ofTopic(topic) || ofTable(table);
      known.set(name, matches);
    }
    return matches;
  };
}

function asTablePattern(pattern: string): (table: TableName) => boolean {
  try {
    return tablePattern(pattern);
  } catch {
    return () => false;
  }
}
