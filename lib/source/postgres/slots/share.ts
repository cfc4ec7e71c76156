import type pg from "pg";
import * as z from "zod";
import { formatTable, type TableName } from "../../../change/table-pattern.ts";
import { routeTables } from "../../../definition/route.ts";
import type { LogPipeline } from "../definition.ts";
import { MAX_SLOTS } from "../definition.ts";
import { PreflightError } from "../postgres-errors.ts";
import { captureTables } from "../preflight/captured-tables.ts";
import { readServerVersion } from "../preflight/server-facts.ts";
import { type RelationEntry, readRelations } from "../preflight/table-facts.ts";
import { isOutbox, pipelineOfSlot, slotNames, wantedSlot } from "./assignment.ts";
import { SlotsReducedError, TopicSplitError } from "./slots-errors.ts";

/** A topic's tables, and the slot that has them. */
export interface TopicShare {
  readonly topic: string;
  readonly tables: readonly RelationEntry[];
  /** The slot whose publication holds them; undefined: none does yet. */
  readonly owner: number | undefined;
  /** Those of them that it holds: a table may be new. */
  readonly published: readonly RelationEntry[];
  /** The slot that should have them. */
  readonly wanted: number;
}

/** One slot's share of a pipeline. */
export interface SlotShare {
  /** The pipeline as this slot's task sees it. */
  readonly pipeline: LogPipeline;
  /** The tables it has. */
  readonly own: readonly TableName[];
  readonly isOwn: (table: TableName) => boolean;
  /** All tables that the pipeline captures, over all its slots. */
  readonly all: readonly TableName[];
  /** All topics of those, and the slot that has each, or will. */
  readonly topics: ReadonlyMap<string, number>;
  /** Topics that another slot has and this one should have. */
  readonly incoming: readonly TopicShare[];
}

const publishedRow = z.object({ publication: z.string(), oid: z.number() });

/**
 * Reads a slot's share. Which slot has a table says the catalog alone: the publication that holds it. A table that none holds
 * yet goes with its topic, or where it should be. With one slot that is the whole pipeline, and nothing is asked.
 *
 * @throws PreflightError, TopicSplitError, SlotsReducedError
 */
export async function readShare(
  client: pg.Client,
  pipeline: LogPipeline,
  slot: number,
): Promise<SlotShare | undefined> {
  if (pipeline.source.slots === 1) return undefined;
  const { topics, all } = await readTopics(client, pipeline);
  const own = topics
    .filter(({ owner, wanted }) => (owner ?? wanted) === slot)
    .flatMap(({ tables }) => tables);
  const names = new Set(own.map(formatTable));
  return {
    pipeline: pipelineOfSlot(pipeline, slot),
    own,
    isOwn: (table) => names.has(formatTable(table)),
    all,
    topics: new Map(topics.map(({ topic, owner, wanted }) => [topic, owner ?? wanted])),
    incoming: topics.filter(
      ({ owner, wanted, tables }) =>
        wanted === slot &&
        owner !== undefined &&
        comes(owner, slot, isOutbox(pipeline, tables[0] as TableName)),
    ),
  };
}

/**
 * Returns true if a topic that another slot has is taken over: only from an earlier one, as slots grow. A table that was renamed may be
 * wanted the other way, and two slots that wait for each other would both stand still: it stays where it is. The outbox must
 * come, since the first slot alone reads it.
 */
function comes(owner: number, slot: number, outbox: boolean): boolean {
  return owner < slot || (outbox && owner !== slot);
}

/** The number of the slot that has a table, or will have it. @throws as `readShare` */
export async function slotOfTable(
  client: pg.Client,
  pipeline: LogPipeline,
  table: TableName,
): Promise<number> {
  if (pipeline.source.slots === 1) return 1;
  const { topics } = await readTopics(client, pipeline);
  const own = topics.find(({ tables }) =>
    tables.some((other) => other.schema === table.schema && other.table === table.table),
  );
  return own?.owner ?? own?.wanted ?? wantedSlot(pipeline, table);
}

async function readTopics(
  client: pg.Client,
  pipeline: LogPipeline,
): Promise<{ readonly topics: readonly TopicShare[]; readonly all: readonly RelationEntry[] }> {
  const { source } = pipeline;
  const { tables, problems } = captureTables(source, await readRelations(client));
  if (problems.length > 0) throw new PreflightError(problems);
  await refuseSweeping(client, source);
  const owners = await readOwners(client, source);
  const route = routeTables(pipeline);
  const topics = [...Map.groupBy(tables, (table) => route(table).topic.name)].map(
    ([topic, members]): TopicShare => {
      const published = members.filter(({ oid }) => owners.has(oid));
      const found = new Set(published.flatMap(({ oid }) => owners.get(oid) ?? []));
      if (found.size > 1) {
        throw new TopicSplitError(
          topic,
          [...found].map((number) => slotNames(source, number).publication),
        );
      }
      const [owner] = found;
      return {
        topic,
        tables: members,
        owner,
        published,
        wanted: wantedSlot(pipeline, members[0] as TableName),
      };
    },
  );
  const highest = Math.max(...topics.map(({ owner }) => owner ?? 1), 1);
  if (highest > source.slots) throw new SlotsReducedError(pipeline.name, highest, source.slots);
  return { topics, all: tables };
}

/**
 * A publication of all tables, or of schemas, made by hand: it publishes what other slots have, and nothing can be taken out.
 * @throws PreflightError
 */
async function refuseSweeping(client: pg.Client, source: LogPipeline["source"]): Promise<void> {
  const names = Array.from({ length: MAX_SLOTS }, (_, i) => slotNames(source, i + 1).publication);
  const schemas =
    (await readServerVersion(client)) >= 150_000
      ? "OR EXISTS (SELECT FROM pg_publication_namespace WHERE pnpubid = p.oid)"
      : "";
  const { rows } = await client.query<{ name: string }>(
    `SELECT p.pubname::text AS name FROM pg_publication p
      WHERE p.pubname = ANY ($1) AND (p.puballtables ${schemas}) ORDER BY 1`,
    [names],
  );
  const problems = rows.map(({ name }) => ({
    code: "PUBLICATION",
    message: `the publication "${name}" is for all tables or for whole schemas, and source.slots is ${source.slots}: it would publish the tables of the other slots too, and two slots would write one topic`,
    remedy:
      "Leave source.slots at 1. Or begin a new epoch, with every capture task stopped and this publication dropped: each slot's task makes one of its own.",
  }));
  if (problems.length > 0) throw new PreflightError(problems);
}

/** The slots whose publications hold a table, by the table's OID. */
async function readOwners(
  client: pg.Client,
  source: LogPipeline["source"],
): Promise<ReadonlyMap<number, readonly number[]>> {
  const numbers = new Map(
    Array.from({ length: MAX_SLOTS }, (_, i) => [slotNames(source, i + 1).publication, i + 1]),
  );
  const { rows } = await client.query(
    `SELECT p.pubname::text AS publication, r.prrelid::int8::float8 AS oid
       FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
      WHERE p.pubname = ANY ($1) ORDER BY p.pubname`,
    [[...numbers.keys()]],
  );
  const owners = new Map<number, number[]>();
  for (const { publication, oid } of z.array(publishedRow).parse(rows))
    owners.set(oid, [...(owners.get(oid) ?? []), numbers.get(publication) as number]);
  return owners;
}
