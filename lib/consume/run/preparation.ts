import { HandlerDiedError } from "../api/handler-errors.ts";
import type { Registration } from "../api/registry.ts";
import type { RowSchema } from "../api/schema.ts";
import { callSchema, type SchemaResult } from "../api/schema-call.ts";
import type { Attempts } from "../fence/checkpoint.ts";
import { HandledEvent, type Rows, wireRows } from "./event.ts";
import { attemptsOf, type Item, now, type Partition } from "./partition.ts";

/** An event whose turn has come. Once `event` is set, it is the item that its handler is given. */
export type DueEvent = Omit<Item, "event"> & { event: Item["event"] | undefined };

/** An event as its handler is to have it; or why it never will be; or why the partition goes no further. */
export type Prepared = Item | Unready;

type Unready =
  | {
      readonly kind: "failed";
      readonly error: unknown;
      readonly calls: number;
      readonly since: string;
      readonly attempts: Attempts | undefined;
    }
  | { readonly kind: "stopped"; readonly error: unknown; readonly attempts: Attempts | undefined };

/**
 * Makes events ready for their handlers: through the schema, if there is one. A schema is the user's as a handler is: it is
 * noted before where the predecessor died, and tried again where it throws.
 */
export class Preparation {
  readonly #partition: Partition;

  constructor(partition: Partition) {
    this.#partition = partition;
  }

  /** Gives a promise only where something is to be waited for. */
  prepare(registration: Registration, given: DueEvent): Prepared | Promise<Prepared> {
    const schema = registration.kind === "sweep" ? undefined : registration.row;
    if (!schema) return this.#ready(given, wireRows(given.wire));
    const { checkpoint, invocation, start } = this.#partition;
    if (checkpoint.attempts || start.note) return this.#attempts(schema, given);
    const begun = callSchema(schema, given.wire, invocation.deadline);
    if (!(begun instanceof Promise) && begun.kind === "done") return this.#ready(given, begun.rows);
    return this.#attempts(schema, given, begun);
  }

  /** Calls a schema until it answers, the change is given up, or time runs out. `begun`: the first call, where it was made. */
  async #attempts(
    schema: RowSchema<unknown>,
    given: DueEvent,
    begun?: SchemaResult | Promise<SchemaResult>,
  ): Promise<Prepared> {
    const partition = this.#partition;
    const { configuration, counts, deadline } = partition.invocation;
    const { position, wire } = given;
    let { calls, since = now() } = partition.callsBefore(position);
    const attempts = () => attemptsOf([given], calls, since);
    const failed = (error: unknown) =>
      ({ kind: "failed", error, calls, since, attempts: attempts() }) as const;
    if (partition.diedOften(calls)) return failed(new HandlerDiedError(calls));
    for (let first = true; ; first = false) {
      calls++;
      if (!first) counts.retried++;
      if (!begun || !first) {
        const lost = await partition.noteCall([given], calls, since);
        if (lost) return { kind: "stopped", error: lost.error, attempts: lost.attempts };
      }
      const result = await (first && begun ? begun : callSchema(schema, wire, deadline));
      if (result.kind === "done") return this.#ready(given, result.rows);
      const { error } = result;
      if (result.kind === "refused") return failed(error);
      partition.log("a row's schema failed", given, calls, error);
      if (result.kind === "unavailable" || (result.kind === "cut-short" && !result.fair)) {
        calls--;
        return { kind: "stopped", error, attempts: attempts() };
      }
      if (calls >= configuration.attempts) return failed(error);
      if (!(await partition.wait(calls))) return { kind: "stopped", error, attempts: attempts() };
    }
  }

  /** Completes `given` in place: a second object for every event would cost time. */
  #ready(given: DueEvent, rows: Rows): Item {
    given.event = new HandledEvent(given.wire, this.#partition.lane, given.position, rows);
    return given as Item;
  }
}
