import { createHash } from "node:crypto";
import { type SourceMembers, sourceHead, sourceTail } from "../../../change/event-envelope.ts";
import { type PositionText, parsePosition } from "../../../change/position.ts";
import { formatTable, tablePattern } from "../../../change/table-pattern.ts";
import type { Topic } from "../../../change/topic.ts";
import type { TributaryError } from "../../../change/tributary-error.ts";
import { captures } from "../../../definition/definition.ts";
import type { RouteTable } from "../../../definition/route.ts";
import type { RelationFacts, TypeCatalog } from "../catalog/type-catalog.ts";
import { KeyChangedError } from "../identity/identity-errors.ts";
import { findKey, formatKey, type KeyColumn } from "../identity/known-tables.ts";
import type { TableIdentities } from "../identity/table-identities.ts";
import type { Span } from "../identity/table-view.ts";
import { KeyColumnError, KeyUnknownError, NameEncodingError } from "./decode-errors.ts";
import type { DecodedPipeline } from "./decoded-pipeline.ts";
import type { OutboxEvents } from "./outbox-events.ts";
import type { Relation } from "./pgoutput/messages.ts";
import type { ChangeListener, PlannedColumn, RelationPlan } from "./relation-plan.ts";
import { ColumnTypes } from "./values/column-type.ts";
import type { TextForm } from "./values/text.ts";

/** Dependencies of `Relations`. */
export interface RelationsOptions {
  readonly pipeline: DecodedPipeline;
  readonly database: string;
  readonly mode?: string | undefined;
  readonly route: RouteTable;
  readonly catalog: TypeCatalog;
  readonly text: TextForm;
  readonly outbox: OutboxEvents;
  /** Tables that the captured names stand for; undefined: as the log and the catalog say at the time. */
  readonly identities?: TableIdentities | undefined;
  /** Why changes must not go to a topic, if so. */
  readonly refuses?: ((topic: string) => TributaryError | undefined) | undefined;
}

/** The relations of one connection, as its Relation messages told them. */
export class Relations {
  readonly #options: RelationsOptions;
  readonly #plans = new Map<number, RelationPlan>();
  /** Primary keys of tables with identity full, kept over reconnects: the table may be gone by then. */
  readonly #primaryKeys = new Map<number, readonly string[]>();
  /** By table, as people write it. */
  readonly #listeners = new Map<string, ChangeListener>();
  #types: ColumnTypes;

  constructor(options: RelationsOptions) {
    this.#options = options;
    this.#types = new ColumnTypes(options.text);
  }

  get(oid: number): RelationPlan | undefined {
    return this.#plans.get(oid);
  }

  /** Lets `listener` see the changes of a table from now on; undefined: nobody. */
  listen(table: string, listener: ChangeListener | undefined): void {
    if (listener) this.#listeners.set(table, listener);
    else this.#listeners.delete(table);
    for (const plan of this.#plans.values()) if (plan.table === table) plan.listener = listener;
  }

  /** Forgets everything a connection has told. */
  forget(): void {
    this.#plans.clear();
    this.#types = new ColumnTypes(this.#options.text);
  }

  /** Takes in a Relation message. A promise when the catalog must say more. @throws CatalogLookupError */
  learn(relation: Relation): Promise<void> | undefined {
    const { identities } = this.#options;
    if (identities?.mustLook(relation)) {
      return identities.lookFor(relation).then(() => this.#learn(relation));
    }
    return this.#learn(relation);
  }

  /** Plans these relations anew, as far as they were told: what is known of their tables has changed. */
  replan(oids: readonly number[]): void {
    for (const oid of oids) {
      const plan = this.#plans.get(oid);
      if (plan) this.#plan(plan.relation, plan.facts, plan.byDefinition);
    }
  }

  #learn(relation: Relation): Promise<void> | undefined {
    const { source } = this.#options.pipeline;
    const view = this.#options.identities?.view(relation);
    if (!view && source.exclude.some((pattern) => tablePattern(pattern)(relation))) {
      this.#plan(relation, undefined, false);
      return undefined;
    }
    const named = captures(source, view?.name ?? relation);
    if (named && relation.identity !== "full" && this.#unknownTypes(relation).length === 0) {
      this.#plan(relation, undefined, true);
      return undefined;
    }
    return this.#learnByCatalog(relation, named);
  }

  async #learnByCatalog(relation: Relation, named: boolean): Promise<void> {
    const { catalog, pipeline } = this.#options;
    const needsFacts = !named || relation.identity === "full";
    const facts = needsFacts ? await catalog.relation(relation.oid) : undefined;
    // A partition is captured with its table. Of a dropped table nobody can say: rather too much than a loss.
    const captured = named || (facts?.ancestors.some((name) => captures(pipeline.source, name)) ?? true);
    const unknown = captured ? this.#unknownTypes(relation) : [];
    if (unknown.length > 0) this.#types.learn(unknown, await catalog.resolve(unknown));
    this.#plan(relation, facts, captured);
  }

  #unknownTypes(relation: Relation): number[] {
    return relation.columns.map((column) => column.type).filter((oid) => !this.#types.has(oid));
  }

  #plan(relation: Relation, facts: RelationFacts | undefined, byDefinition: boolean): void {
    const view = this.#options.identities?.view(relation);
    // As a partition, or dropped, it would be captured under a name that the definition does not have.
    const hasLeft =
      view === undefined &&
      this.#options.identities?.hasLeft(relation.oid) === true &&
      !captures(this.#options.pipeline.source, relation);
    const captured = byDefinition && view?.passedOver !== true && !hasLeft;
    const spans = view?.spans ?? [{ from: undefined, key: undefined, problem: undefined, swept: false }];
    // A name that another slot has is that slot's, whatever the table was called before.
    const isNamed = view === undefined || captures(this.#options.pipeline.source, relation);
    const told = captured && isNamed ? this.#options.route(relation).topic.name : undefined;
    const foreign = told === undefined ? undefined : this.#options.refuses?.(told);
    let plan: RelationPlan | undefined;
    let from: PositionText | undefined;
    for (const span of spans.toReversed()) {
      const later = plan && from !== undefined ? { from: parsePosition(from), plan } : undefined;
      const named = view ? { ...relation, ...view.name } : relation;
      const made = this.#planOf(named, facts, captured, span);
      plan = { ...made, problem: foreign ?? made.problem, relation, facts, byDefinition, later };
      from = span.from;
    }
    this.#plans.set(relation.oid, plan as RelationPlan);
  }

  #planOf(
    relation: Relation,
    facts: RelationFacts | undefined,
    captured: boolean,
    span: Span,
  ): Omit<RelationPlan, "relation" | "facts" | "byDefinition" | "later"> {
    const { pipeline, database, route, outbox: events, mode } = this.#options;
    const table = formatTable(relation);
    const { topic, key: chosen } = route(relation);
    const { key, watched, problem } = this.#key(relation, table, chosen, facts, span.key);
    const unnamed = relation.noName && new NameEncodingError(relation.noName);
    const outbox = captured ? events.columns(relation) : undefined;
    const shared = captured && outbox === undefined ? events.shares(topic.name) : undefined;
    const wholeOldRows = facts?.wholeOldRows ?? true;
    const columns = relation.columns.map((column, i) => ({
      name: column.name,
      prefix: `${JSON.stringify(column.name)}:`,
      prefixBytes: Buffer.from(`${JSON.stringify(column.name)}:`),
      type: this.#types.get(column.type),
      identity: wholeOldRows ? column.key : watched.includes(i),
    }));
    const keyNames = key.map((i) => (columns[i] as PlannedColumn).name);
    const source: SourceMembers = {
      ...{ pipeline: pipeline.name, database, schema: relation.schema, table: relation.table, mode },
      ...{ schemaVersion: schemaVersion(relation, keyNames), key: keyNames },
    };
    const tail = sourceTail(source);
    return {
      columns,
      table,
      captured: captured && outbox === undefined,
      outbox,
      topic,
      key,
      watched,
      wholeOldRows,
      problem: span.problem ?? unnamed ?? problem ?? shared,
      unseen:
        chosen === undefined && !span.swept && span.key
          ? this.#unseen(relation, topic, span.key, key)
          : undefined,
      listener: this.#listeners.get(table),
      source,
      sourceTail: tail,
      sourceHeadBytes: Buffer.from(sourceHead(source)),
      sourceTailBytes: Buffer.from(tail),
    };
  }

  /**
   * That the log's identity lacks a column of the key, as after ALTER TABLE … DROP CONSTRAINT …, ADD PRIMARY KEY: whether an update
   * changed the key does not stand there, and it would leave the row's old place as it is.
   */
  #unseen(
    relation: Relation,
    topic: Topic,
    known: readonly KeyColumn[],
    key: readonly number[],
  ): TributaryError | undefined {
    if (relation.identity === "full" || key.every((i) => relation.columns[i]?.key)) return undefined;
    const flagged = relation.columns.filter((column) => column.key).map(({ name }) => name);
    return new KeyChangedError({
      ...{ table: formatTable(relation), topic: topic.name, before: formatKey(known) },
      now: flagged.length === 0 ? "none" : `(${flagged.join(", ")})`,
    });
  }

  #key(
    relation: Relation,
    table: string,
    chosen: readonly string[] | undefined,
    facts: RelationFacts | undefined,
    known: readonly KeyColumn[] | undefined,
  ): Pick<RelationPlan, "key" | "watched" | "problem"> {
    const names = relation.columns.map((column) => column.name);
    const own = known ? findKey(known, relation) : this.#ownKey(relation, names, facts);
    if (chosen === undefined) {
      if (own === undefined) return { key: [], watched: [], problem: new KeyUnknownError({ table }) };
      return { key: own, watched: own, problem: undefined };
    }
    const key: number[] = [];
    const hasIdentity = relation.columns.some((column) => column.key);
    for (const column of chosen) {
      const index = names.indexOf(column);
      if (index === -1 || (hasIdentity && !relation.columns[index]?.key)) {
        const problem = index === -1 ? "not in the table" : "not in the identity";
        return { key: [], watched: [], problem: new KeyColumnError({ table, column, problem }) };
      }
      key.push(index);
    }
    return { key, watched: [...new Set([...(own ?? []), ...key])].sort((a, b) => a - b), problem: undefined };
  }

  /** Indexes of the row's own key in the relation's order: replica identity, or the primary key with identity full. */
  #ownKey(
    relation: Relation,
    names: readonly string[],
    facts: RelationFacts | undefined,
  ): number[] | undefined {
    if (relation.identity !== "full") return names.flatMap((_, i) => (relation.columns[i]?.key ? [i] : []));
    const fits = (key: readonly string[] | undefined) => key?.every((column) => names.includes(column));
    const remembered = this.#primaryKeys.get(relation.oid);
    const key = [facts?.primaryKey, remembered].find(fits);
    if (key === undefined) return undefined;
    this.#primaryKeys.set(relation.oid, key);
    return names.flatMap((name, i) => (key.includes(name) ? [i] : []));
  }
}

/** Content hash of a relation: names, types and key, so that equal tables have equal versions. */
function schemaVersion(relation: Relation, key: readonly string[]): string {
  const content = [
    relation.schema,
    relation.table,
    relation.columns.map((column) => [column.name, column.type, column.modifier]),
    key,
  ];
  return createHash("sha256").update(JSON.stringify(content)).digest("hex").slice(0, 8);
}
