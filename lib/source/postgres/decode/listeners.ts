import type { Tuple } from "./pgoutput/tuple.ts";
import type { ChangeListener, RelationPlan } from "./relation-plan.ts";

/** Listeners to a table's changes: its backfill, and the reader of single rows of it. */
export type ListenerKind = "backfill" | "reread";

type Listen = (table: string, listener: ChangeListener | undefined) => void;

/** Lets several see the changes of one table, where the decoder knows one listener for each. */
export class Listeners {
  readonly #listen: Listen;
  readonly #tables = new Map<string, Map<ListenerKind, ChangeListener>>();

  /** `listen`: the decoder's. */
  constructor(listen: Listen) {
    this.#listen = listen;
  }

  /** Lets `listener` see the changes of a table from now on, in place of the one of its kind; undefined: nobody. */
  set(kind: ListenerKind, table: string, listener: ChangeListener | undefined): void {
    const all = this.#tables.get(table) ?? new Map<ListenerKind, ChangeListener>();
    if (listener) all.set(kind, listener);
    else all.delete(kind);
    if (all.size > 0) this.#tables.set(table, all);
    else this.#tables.delete(table);
    const [first, second] = all.values();
    this.#listen(table, first && second ? new Both(first, second) : first);
  }
}

class Both implements ChangeListener {
  readonly #first: ChangeListener;
  readonly #second: ChangeListener;

  constructor(first: ChangeListener, second: ChangeListener) {
    this.#first = first;
    this.#second = second;
  }

  inserted(buffer: Buffer, plan: RelationPlan, row: Tuple): void {
    this.#first.inserted(buffer, plan, row);
    this.#second.inserted(buffer, plan, row);
  }

  updated(buffer: Buffer, plan: RelationPlan, row: Tuple, old: Tuple | undefined, whole: boolean): void {
    this.#first.updated(buffer, plan, row, old, whole);
    this.#second.updated(buffer, plan, row, old, whole);
  }

  deleted(buffer: Buffer, plan: RelationPlan, old: Tuple): void {
    this.#first.deleted(buffer, plan, old);
    this.#second.deleted(buffer, plan, old);
  }

  truncated(plan: RelationPlan): void {
    this.#first.truncated(plan);
    this.#second.truncated(plan);
  }
}
