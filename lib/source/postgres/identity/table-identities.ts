import {
  formatPosition,
  type PositionText,
  parsePosition,
  START_OF_HISTORY,
} from "../../../change/position.ts";
import { formatTable, parseTable, type TableName } from "../../../change/table-pattern.ts";
import type { TributaryError } from "../../../change/tributary-error.ts";
import type { RouteTable } from "../../../definition/route.ts";
import type { Log } from "../../../log.ts";
import type { CatalogQuery } from "../catalog/type-catalog.ts";
import { CatalogLookupError } from "../decode/decode-errors.ts";
import type { Relation } from "../decode/pgoutput/messages.ts";
import { type CatalogLook, type CatalogTable, lookAtTables } from "./catalog-look.ts";
import { KeyChangedError, TableReplacedError } from "./identity-errors.ts";
import {
  areAlike,
  compareKeys,
  findKey,
  formatKey,
  formatKeys,
  type KeyColumn,
  type KnownTables,
  type TableStretch,
  withNameBetween,
  withNames,
} from "./known-tables.ts";

/** What `TableIdentities` is made of. */
export interface TableIdentitiesOptions {
  /** As stored; undefined: never yet. */
  readonly known: KnownTables | undefined;
  readonly epoch: number;
  readonly route: RouteTable;
  /** Whether the definition has a table's rows in this slot. */
  readonly captures: (table: TableName) => boolean;
  readonly query: CatalogQuery;
  /** Whether anything is known from before, and can be held; default: yes. */
  readonly keeps?: boolean;
  /** Resolves when they are stored. */
  readonly store: (tables: KnownTables) => Promise<void>;
  readonly log: Log;
  /** What is read of a table, or not, has changed. */
  readonly onChange: (oids: readonly number[]) => void;
  /** Something is to be held. */
  readonly onDue: () => void;
}

/** A captured name whose table, or key, is another one than what is known of it. */
export interface Difference {
  /** The captured name. */
  readonly table: string;
  readonly error: KeyChangedError | TableReplacedError;
  /** What has the name now; undefined: nothing. */
  readonly now: CatalogTable | undefined;
  /** Changes from here on are not given under what is known. */
  readonly from: PositionText;
}

/** How the changes of a relation are given from a position on (undefined: from the first). */
export interface Span {
  readonly from: PositionText | undefined;
  /** Undefined: the log's own flags say it. */
  readonly key: readonly KeyColumn[] | undefined;
  readonly problem: TributaryError | undefined;
  /** Whether a change is given of whose old row the log does not tell the key: a sweep behind it puts right what it does to the old one. */
  readonly swept: boolean;
}

/** What is known of a relation of the log. */
export interface TableView {
  /** The name that its changes go under. */
  readonly name: TableName;
  /** Of a table that has left its name for good: nothing of it is given. */
  readonly passedOver: boolean;
  /** In order; at least one. */
  readonly spans: readonly [Span, ...Span[]];
}

/**
 * Which table each captured name stands for, and by which key its rows are told apart: stored outside the database, so that a
 * replay puts a change where it was put before, and that another table under a captured name is noticed. Until an operator
 * accepts a difference, changes behind it are not given (their topic is held).
 */
export class TableIdentities {
  readonly #options: TableIdentitiesOptions;
  readonly #known: Map<string, readonly TableStretch[]>;
  /** The captured name of each table that has one. */
  #names = new Map<number, string>();
  readonly #differences = new Map<string, Difference>();
  /** Captured names whose difference holds their topic already. */
  readonly #held = new Set<string>();
  #storing: Promise<void> = Promise.resolve();

  constructor(options: TableIdentitiesOptions) {
    this.#options = options;
    this.#known = new Map(Object.entries(options.known ?? {}));
    this.#index();
  }

  /** What is known, as it is stored. */
  get known(): KnownTables {
    return Object.fromEntries(this.#known);
  }

  /** How the captured names differ from what is known of them, by name. */
  get differences(): ReadonlyMap<string, Difference> {
    return this.#differences;
  }

  /** Whether the catalog has to be asked before changes of a relation can be given. */
  mustLook(relation: Relation): boolean {
    const name = formatTable(relation);
    const own = this.#names.get(relation.oid);
    const known = this.#known.get(name);
    if (own === undefined && known === undefined) return this.#options.captures(relation);
    if (own !== name) return true;
    if (relation.identity === "full") return true;
    return !this.#isFlagged(relation, known?.at(-1)?.key ?? []);
  }

  /** Looks at the tables that a relation has to do with. @throws CatalogLookupError, and what the record throws. */
  async lookFor(relation: Relation): Promise<void> {
    const name = formatTable(relation);
    const names = new Set([name, this.#names.get(relation.oid) ?? name]);
    const look = await this.#look([relation.oid], [...names]);
    await this.#takeIn([...names], look);
    const here = look.byOid.get(relation.oid);
    const known = this.#known.get(this.#names.get(relation.oid) ?? name) ?? [];
    const current = known.at(-1);
    const key =
      here && current?.oid === here.oid && withNameBetween(current.key, relation.columns, here.columns);
    if (!key) return;
    this.#known.set(this.#names.get(relation.oid) ?? name, [...known.slice(0, -1), { ...current, key }]);
    await this.#store();
  }

  /** Looks at all that is known. @throws CatalogLookupError, and what the record throws. */
  async lookAtAll(): Promise<void> {
    const names = [...this.#known.keys()];
    await this.#takeIn(names, await this.#look([], names));
  }

  /**
   * The first look of a task: what is new among the captured tables is taken in, and what has left the definition is
   * forgotten. @throws CatalogLookupError, and what the record throws.
   */
  async begin(tables: readonly TableName[]): Promise<void> {
    const captured = tables.filter(this.#options.captures).map(formatTable);
    const look = await this.#look([], [...new Set([...captured, ...this.#known.keys()])]);
    for (const name of this.#known.keys())
      if (!this.#options.captures(parseTable(name))) this.#known.delete(name);
    this.#index();
    await this.#takeIn([...new Set([...captured, ...this.#known.keys()])], look, true);
  }

  /** How the changes of a relation are to be given; undefined: nothing is known of it. */
  view(relation: Relation): TableView | undefined {
    const told = formatTable(relation);
    const before = this.#names.get(relation.oid);
    const moved = before !== undefined && before !== told;
    const problem = this.#differences.get(told) ?? (moved ? this.#differences.get(before) : undefined);
    // A change made while the table had another name for a time is its own all the same.
    const name = moved && !(problem && this.#options.captures(relation)) ? before : told;
    const stretches = this.#known.get(name);
    const whole = (error: TributaryError | undefined): TableView => ({
      name: parseTable(name),
      passedOver: error === undefined,
      spans: [span(undefined, undefined, error)],
    });
    if (moved && problem) return whole(problem.error);
    if (!stretches) return problem && whole(problem.error);
    const difference = this.#differences.get(name);
    const current = stretches.at(-1) as TableStretch;
    const own = stretches.filter(({ oid }) => oid === relation.oid);
    if (own.length === 0) return whole(difference?.error);
    const keyOf = (key: readonly KeyColumn[]) => this.#keyIn(relation, key);
    const [first] = own as [TableStretch, ...TableStretch[]];
    const lenient = this.#options.keeps === false;
    const given = own.flatMap(({ from, key, sweptTo }, i): Span[] => {
      const known = span(i === 0 ? undefined : from, keyOf(key));
      if (sweptTo === undefined) return [{ ...known, swept: lenient }];
      const next = own[i + 1]?.from ?? difference?.from;
      const strict = next === undefined || sweptTo < next;
      return [{ ...known, swept: true }, ...(strict ? [{ ...known, from: sweptTo, swept: lenient }] : [])];
    });
    const spans = given as [Span, ...Span[]];
    const left = stretches.find(({ oid, from }) => oid !== relation.oid && from > first.from);
    if (left && current.oid !== relation.oid)
      spans.push(span(left.from, undefined, this.#replaced(name, current, relation)));
    else if (difference && !this.#predates(relation, current, difference))
      spans.push(span(difference.from, current.key, difference.error));
    return { name: parseTable(name), passedOver: false, spans };
  }

  /** Whether another table was accepted under the captured name that this one had: what there is now is read with a sweep. */
  hasLeft(oid: number): boolean {
    if (this.#names.has(oid)) return false;
    for (const stretches of this.#known.values())
      if (stretches.some((stretch) => stretch.oid === oid)) return true;
    return false;
  }

  /** Differences up to a place of the log that hold their topics from now on. */
  takeDue(received: bigint): readonly Difference[] {
    const due = [...this.#differences.values()].filter(
      ({ table, from }) => !this.#held.has(table) && parsePosition(from).commitLsn <= received,
    );
    for (const { table } of due) this.#held.add(table);
    return due;
  }

  /** Whether `takeDue` would give something. */
  isDue(received: bigint): boolean {
    for (const { table, from } of this.#differences.values())
      if (!this.#held.has(table) && parsePosition(from).commitLsn <= received) return true;
    return false;
  }

  /** A topic is held already for a difference of this table, from this position on. */
  isHeldFrom(table: string, from: PositionText): void {
    const difference = this.#differences.get(table);
    if (!difference) return;
    this.#held.add(table);
    if (from >= difference.from) return;
    this.#differences.set(table, { ...difference, from });
    this.#options.onChange((this.#known.get(table) ?? []).map(({ oid }) => oid));
  }

  /** What has a captured name now (undefined: nothing), and the first position behind that. @throws CatalogLookupError */
  async present(table: string): Promise<{ now: CatalogTable | undefined; behind: PositionText }> {
    const { byName, lsn } = await this.#look([], [table]);
    return { now: byName.get(table), behind: this.#at(lsn) };
  }

  /**
   * From a position on, a captured name stands for this table with this key; undefined: for nothing any more. `sweptTo`: a sweep
   * that begins behind here is on record. @throws what the record throws.
   */
  async accept(
    table: string,
    now: CatalogTable | undefined,
    from: PositionText,
    sweptTo?: PositionText,
  ): Promise<void> {
    const known = this.#known.get(table) ?? [];
    const current = known.at(-1);
    const oids = [...known.map(({ oid }) => oid), ...(now ? [now.oid] : [])];
    this.#differences.delete(table);
    this.#held.delete(table);
    if (!now) this.#known.delete(table);
    else if (
      current?.oid !== now.oid ||
      compareKeys(current.key, now.key) !== "same" ||
      sweptTo !== undefined
    ) {
      const { oid, identity, key } = now;
      const before = this.#names.get(oid);
      if (before !== undefined && before !== table && !this.#differences.has(before))
        this.#known.delete(before);
      this.#known.set(table, [...known, { from, oid, identity, key, sweptTo }]);
    }
    this.#index();
    await this.#store();
    this.#options.onChange(oids);
  }

  async #look(oids: readonly number[], names: readonly string[]): Promise<CatalogLook> {
    const known = names.flatMap((name) => this.#known.get(name)?.at(-1)?.oid ?? []);
    try {
      return await lookAtTables(this.#options.query, [...oids, ...known], names.map(parseTable));
    } catch (cause) {
      throw new CatalogLookupError({ what: "captured tables", cause });
    }
  }

  /** Holds what is known against what the catalog has. `first`: at the start of a task. */
  async #takeIn(names: readonly string[], look: CatalogLook, first = false): Promise<void> {
    const from = this.#at(look.lsn);
    const changed: number[] = [];
    let learned = false;
    for (const name of names) {
      const current = this.#known.get(name)?.at(-1);
      const here = look.byName.get(name);
      if (!current) {
        if (here && this.#options.captures(here) && this.#adopt(name, here, look, from, first))
          learned = true;
        continue;
      }
      const difference = this.#differenceOf(name, current, here, look.byOid.get(current.oid), from);
      if (difference) {
        if (this.#note(difference)) changed.push(current.oid, ...(here ? [here.oid] : []));
        continue;
      }
      if (this.#differences.delete(name)) changed.push(current.oid);
      this.#held.delete(name);
      if (here?.oid === current.oid && this.#refresh(name, current, here)) {
        learned = true;
        changed.push(current.oid);
      }
    }
    this.#index();
    if (learned) await this.#store();
    if (changed.length > 0) this.#options.onChange(changed);
    if (this.#differences.size > this.#held.size) this.#options.onDue();
  }

  /** A captured name of which nothing is known. Returns whether it is known now. */
  #adopt(name: string, here: CatalogTable, look: CatalogLook, from: PositionText, first: boolean): boolean {
    const before = this.#names.get(here.oid);
    const { oid, identity, key } = here;
    if (before !== undefined && before !== name) {
      const topic = this.#topicOf(name);
      const error = new TableReplacedError({ table: before, oid, called: name, topic });
      if (!first) {
        this.#note({ table: name, error, now: here, from });
        return false;
      }
      this.#options.log.warn(`${error.message}: its changes go to the topic ${topic} from here on`, {
        code: error.code,
      });
      // Where another table has the name that it had, that is a difference of its own.
      if (!look.byName.has(before)) this.#known.delete(before);
    }
    this.#known.set(name, [{ from: START_OF_HISTORY, oid, identity, key }]);
    return true;
  }

  #differenceOf(
    table: string,
    current: TableStretch,
    here: CatalogTable | undefined,
    same: CatalogTable | undefined,
    from: PositionText,
  ): Difference | undefined {
    const topic = this.#topicOf(table);
    if (here?.oid === current.oid) {
      // By columns that the definition chose, rows go where they went.
      if (this.#isChosen(table) || compareKeys(current.key, here.key) !== "other") return undefined;
      const [before, now] = formatKeys(current.key, here.key);
      return { table, from, now: here, error: new KeyChangedError({ table, before, now, topic }) };
    }
    // Dropped: nothing of it comes any more, and nothing has its name.
    if (!here && !same) return undefined;
    const called = same && formatTable(same);
    const error = new TableReplacedError({ table, oid: current.oid, now: here?.oid, called, topic });
    return { table, from, now: here, error };
  }

  /** Returns whether it was new. */
  #note(difference: Difference): boolean {
    const { table, error } = difference;
    const before = this.#differences.get(table);
    if (before?.error.message === error.message) return false;
    // What was given up to the first one's place stays given.
    this.#differences.set(table, { ...difference, from: before?.from ?? difference.from });
    this.#options.log.error(error.message, { code: error.code, remedy: error.remedy });
    return true;
  }

  /** The same table by the same key: new names of its columns, and what its identity is. Returns whether anything is new. */
  #refresh(name: string, current: TableStretch, here: CatalogTable): boolean {
    const change = compareKeys(current.key, here.key);
    const renamed = change === "renamed";
    const moved = current.key.some(({ inPlace }, i) => inPlace !== here.key[i]?.inPlace);
    if (change === "same" && current.identity === here.identity && !moved) return false;
    const key = change === "other" ? here.key : withNames(current.key, here.key);
    const { log } = this.#options;
    if (change === "other")
      log.warn(
        `the key of ${name} was ${formatKey(current.key)} and is ${formatKey(key)} now; its partitions are chosen by topics.keys as before`,
        { code: "KEY_CHANGED" },
      );
    if (renamed)
      log.info(`the key of ${name} was ${formatKey(current.key)} and is called ${formatKey(key)} now`);
    if (current.identity !== here.identity)
      log.info(
        `the replica identity of ${name} was ${nameOf(current.identity)} and is ${nameOf(here.identity)} now; its key is ${formatKey(key)} as before`,
      );
    this.#known.set(name, [
      ...(this.#known.get(name) ?? []).slice(0, -1),
      { ...current, identity: here.identity, key },
    ]);
    return true;
  }

  #at(commitLsn: bigint): PositionText {
    return formatPosition({ epoch: this.#options.epoch, commitLsn, ordinal: 1 });
  }

  #isChosen(table: string): boolean {
    return this.#options.route(parseTable(table)).key !== undefined;
  }

  #topicOf(table: string): string {
    return this.#options.route(parseTable(table)).topic.name;
  }

  #replaced(table: string, { oid }: TableStretch, relation: Relation): TableReplacedError {
    return new TableReplacedError({ table, oid, now: relation.oid, topic: this.#topicOf(table) });
  }

  /** A key as it can be used for a relation; undefined: its own flags are to be. */
  #keyIn(relation: Relation, key: readonly KeyColumn[]): readonly KeyColumn[] | undefined {
    if (findKey(key, relation) !== undefined) return key;
    // A name in between that nobody saw: the log says which columns it is.
    return relation.identity === "full" ? key : undefined;
  }

  /** Whether a relation, as the log tells it, is of the time before a key's change. */
  #predates(relation: Relation, current: TableStretch, { error, now }: Difference): boolean {
    if (!(error instanceof KeyChangedError) || !now) return false;
    if (relation.identity !== "full") return this.#isFlagged(relation, current.key);
    return findKey(now.key, relation) === undefined && findKey(current.key, relation) !== undefined;
  }

  /** Whether the log's flags say this key. */
  #isFlagged(relation: Relation, key: readonly KeyColumn[]): boolean {
    const flagged = relation.columns.filter((column) => column.key);
    return (
      flagged.length === key.length &&
      key.every(({ names, type }, i) => names.at(-1) === flagged[i]?.name && type === flagged[i]?.type)
    );
  }

  #index(): void {
    this.#names = new Map(
      [...this.#known].map(([name, stretches]) => [(stretches.at(-1) as TableStretch).oid, name]),
    );
  }

  /** One at a time. */
  #store(): Promise<void> {
    const stored = this.#storing.then(() => this.#options.store(this.known));
    this.#storing = stored.catch(() => {});
    return stored;
  }
}

function span(from: PositionText | undefined, key: Span["key"], problem?: TributaryError): Span {
  return { from, key, problem, swept: false };
}

/** Whether a table can take another's place at once: rows with the same keys go to the same partitions. */
export function isAlike(difference: Difference, known: KnownTables): boolean {
  const current = known[difference.table]?.at(-1);
  return current !== undefined && difference.now !== undefined && areAlike(current.key, difference.now.key);
}

function nameOf(identity: string): string {
  return { d: "DEFAULT", n: "NOTHING", f: "FULL", i: "USING INDEX" }[identity] ?? identity;
}
