import {
  formatPosition,
  type PositionText,
  parsePosition,
  START_OF_HISTORY,
} from "../../../change/position.ts";
import { formatTable, parseTable, type TableName } from "../../../change/table-pattern.ts";
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
  formatKey,
  formatKeys,
  type KnownTables,
  type TableStretch,
  withNameBetween,
  withNames,
} from "./known-tables.ts";
import type { IdentityDifference, TableView } from "./table-view.ts";
import { isFlagged, viewOf } from "./table-view.ts";

/** Dependencies of `TableIdentities`. */
export interface TableIdentitiesOptions {
  /** As stored; undefined: never yet. */
  readonly known: KnownTables | undefined;
  readonly epoch: number;
  readonly route: RouteTable;
  /** Returns true if the definition has a table's rows in this slot. */
  readonly captures: (table: TableName) => boolean;
  readonly query: CatalogQuery;
  /** True if anything is known from before, and can be held; the default. */
  readonly keeps?: boolean;
  /** Resolves when they are stored. */
  readonly store: (tables: KnownTables) => Promise<void>;
  readonly log: Log;
  /** Called when other changes of these tables are to be given than before. */
  readonly onChange: (oids: readonly number[]) => void;
  /** Something is to be held. */
  readonly onDue: () => void;
}

/**
 * The table that each captured name stands for, and the key that tells its rows apart: stored outside the database, so that a
 * replay puts a change where it was put before, and that another table under a captured name is noticed. Until an operator
 * accepts a difference, changes behind it are not given (their topic is held).
 */
export class TableIdentities {
  readonly #options: TableIdentitiesOptions;
  readonly #known: Map<string, readonly TableStretch[]>;
  /** The captured name of each table that has one. */
  #names = new Map<number, string>();
  readonly #differences = new Map<string, IdentityDifference>();
  /** Captured names whose difference holds their topic already. */
  readonly #held = new Set<string>();
  #storing: Promise<void> = Promise.resolve();

  constructor(options: TableIdentitiesOptions) {
    this.#options = options;
    this.#known = new Map(Object.entries(options.known ?? {}));
    this.#index();
  }

  /** The known tables, as they are stored. */
  get known(): KnownTables {
    return Object.fromEntries(this.#known);
  }

  /** Differences of the captured names from what is known of them, by name. */
  get differences(): ReadonlyMap<string, IdentityDifference> {
    return this.#differences;
  }

  /** Returns true if the catalog has to be asked before changes of a relation can be given. */
  mustLook(relation: Relation): boolean {
    const name = formatTable(relation);
    const own = this.#names.get(relation.oid);
    const known = this.#known.get(name);
    if (own === undefined && known === undefined) return this.#options.captures(relation);
    if (own !== name) return true;
    if (relation.identity === "full") return true;
    return !isFlagged(relation, known?.at(-1)?.key ?? []);
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
    const left = [...this.#known.keys()].filter((name) => !this.#options.captures(parseTable(name)));
    for (const name of left) this.#known.delete(name);
    this.#index();
    await this.#takeIn([...new Set([...captured, ...this.#known.keys()])], look, true);
    if (left.length > 0) await this.#store();
  }

  /** Returns the way to give the changes of a relation; undefined: nothing is known of it. */
  view(relation: Relation): TableView | undefined {
    return viewOf(relation, {
      known: this.#known,
      names: this.#names,
      differences: this.#differences,
      captures: this.#options.captures,
      lenient: this.#options.keeps === false,
      topicOf: (table) => this.#topicOf(table),
    });
  }

  /** Returns true if another table was accepted under the captured name that this one had: what there is now is read with a sweep. */
  hasLeft(oid: number): boolean {
    if (this.#names.has(oid)) return false;
    for (const stretches of this.#known.values())
      if (stretches.some((stretch) => stretch.oid === oid)) return true;
    return false;
  }

  /** Differences up to a place of the log that hold their topics from now on. */
  takeDue(received: bigint): readonly IdentityDifference[] {
    const due = [...this.#differences.values()].filter(
      ({ table, from }) => !this.#held.has(table) && parsePosition(from).commitLsn <= received,
    );
    for (const { table } of due) this.#held.add(table);
    return due;
  }

  /** Returns true if `takeDue` would give something. */
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

  /** Returns the table that has a captured name now (undefined: none), and the first position behind that. @throws CatalogLookupError */
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
  ): IdentityDifference | undefined {
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
  #note(difference: IdentityDifference): boolean {
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

/** Returns true if a table can take another's place at once: rows with the same keys go to the same partitions. */
export function isAlike(difference: IdentityDifference, known: KnownTables): boolean {
  const current = known[difference.table]?.at(-1);
  return current !== undefined && difference.now !== undefined && areAlike(current.key, difference.now.key);
}

function nameOf(identity: string): string {
  return { d: "DEFAULT", n: "NOTHING", f: "FULL", i: "USING INDEX" }[identity] ?? identity;
}
