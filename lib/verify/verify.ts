import type { SinkRow, VerifiableTable } from "../consume/api/verifiable-sink.ts";
import { CHUNKS, ChunkSums, chunkOf } from "./chunks.ts";
import {
  type ComparedColumn,
  comparableText,
  type Digest,
  differingColumns,
  digestOf,
} from "./comparable.ts";
import type { SourceTable } from "./source-table.ts";

/** A row that source and sink do not hold alike, although the consumer has passed all that made it so. */
export interface RowDifference {
  /** `missing`: the sink does not hold it. `extra`: the source does not. `different`: both do, with other values. `repeated`: the sink holds it more than once. */
  readonly kind: "missing" | "extra" | "different" | "repeated";
  /** True if its key has an open dead letter: redrive brings it. */
  readonly parked: boolean;
  /** Values of the row's key. */
  readonly key: SinkRow;
  /** Names of the columns that differ, if both hold the row. */
  readonly columns: readonly string[];
}

/** Result of a comparison. */
export interface Comparison {
  readonly rows: { readonly source: number; readonly sink: number };
  readonly chunks: { readonly all: number; readonly differing: number };
  readonly differences: readonly RowDifference[];
  /** Partitions in which the consumer is behind: what differs may still be on its way. */
  readonly behind: readonly number[];
  /** Rows that differ while the consumer is behind, or that changed at every look: nothing can be said of them. */
  readonly undecided: number;
  /** The bound of rows looked at one by one was reached: more may differ. */
  readonly more: boolean;
}

/** Both sides of a comparison, and its bounds. */
export interface ComparisonOptions {
  readonly source: Pick<SourceTable, "columns" | "key" | "pages" | "row">;
  readonly sink: VerifiableTable;
  /** Returns the partitions that are behind when its time is over: see `passProbe`. */
  readonly pass: () => Promise<readonly number[]>;
  /** Returns true if a row's partition key has an open dead letter. */
  readonly isParked: (row: SinkRow) => boolean;
  /** Rows that are looked at one by one, at most. */
  readonly maxRows?: number;
  readonly signal: AbortSignal;
}

/** Rows of differing chunks that are remembered by side, at most. */
const MAX_REMEMBERED = 200_000;
const DEFAULT_MAX_ROWS = 1_000;
/** Looks at rows that changed at the source meanwhile. */
const ROUNDS = 3;

/** The compared columns, and how rows are named and summed by them. */
interface Columns {
  readonly key: readonly ComparedColumn[];
  readonly all: readonly ComparedColumn[];
}

/**
 * Compares what the source and a sink hold: counts and hashes by chunk, then the rows of chunks that differ. What differs
 * then is looked at one by one: read on both sides, a probe passed, read on both sides again. A row that changed on
 * neither side meanwhile, and differs, is not on its way any more: its last change stands before the probe.
 *
 * @throws what source and sink throw.
 */
export async function compareTable(options: ComparisonOptions): Promise<Comparison> {
  const { source, sink, maxRows = DEFAULT_MAX_ROWS, signal } = options;
  const names = sink.columns;
  const compared = names ? source.columns.filter(({ name }) => names.includes(name)) : source.columns;
  const columns: Columns = {
    key: source.key,
    all: compared.map((column) => ({ ...column, jsonNull: sink.jsonNull === true })),
  };
  const [here, there] = await Promise.all([
    sums(columns, sourceRows(source, signal)),
    sums(columns, sink.rows(signal)),
  ]);
  const differing = here.differing(there);
  const found = {
    rows: { source: here.rows, sink: there.rows },
    chunks: { all: CHUNKS, differing: differing.length },
  };
  if (differing.length === 0) return { ...found, differences: [], behind: [], undecided: 0, more: false };
  const { chunks, cut } = bounded(differing, here, there);
  const { suspects, repeated } = await suspectKeys(columns, chunks, options);
  const decided = await decide(columns, suspects.slice(0, maxRows), options);
  const twice = await stillRepeated(columns, repeated, maxRows, options);
  return {
    ...found,
    ...decided,
    differences: [...decided.differences, ...twice],
    more: cut || Math.max(suspects.length, repeated.size) > maxRows,
  };
}

async function sums(columns: Columns, pages: AsyncIterable<readonly SinkRow[]>): Promise<ChunkSums> {
  const total = new ChunkSums();
  await eachRow(columns, pages, (keyText, digest) => total.add(keyText, digest));
  return total;
}

async function eachRow(
  { key, all }: Columns,
  pages: AsyncIterable<readonly SinkRow[]>,
  take: (keyText: string, digest: Digest, row: SinkRow) => void,
): Promise<void> {
  for await (const page of pages) {
    for (const row of page) take(comparableText(key, row), digestOf(comparableText(all, row)), row);
  }
}

async function* sourceRows(
  source: ComparisonOptions["source"],
  signal: AbortSignal,
): AsyncGenerator<readonly SinkRow[]> {
  for await (const page of source.pages(signal)) yield page.map(({ values }) => values);
}

/** As many of the differing chunks as can be remembered row by row. */
function bounded(differing: readonly number[], here: ChunkSums, there: ChunkSums) {
  const chunks = new Set<number>();
  let rows = 0;
  for (const chunk of differing) {
    rows += Math.max(here.count(chunk), there.count(chunk));
    if (rows > MAX_REMEMBERED && chunks.size > 0) return { chunks, cut: true };
    chunks.add(chunk);
  }
  return { chunks, cut: false };
}

/** Keys whose rows differ between two readings of both sides, and the texts of those that the sink gave more than once. */
async function suspectKeys(
  columns: Columns,
  chunks: ReadonlySet<number>,
  { source, sink, signal }: ComparisonOptions,
): Promise<{ suspects: SinkRow[]; repeated: ReadonlySet<string> }> {
  const repeated = new Set<string>();
  const rowsOf = async (pages: AsyncIterable<readonly SinkRow[]>, ofSink: boolean) => {
    const rows = new Map<string, { digest: Digest; key: SinkRow }>();
    await eachRow(columns, pages, (keyText, digest, row) => {
      if (!chunks.has(chunkOf(keyText))) return;
      if (ofSink && rows.has(keyText)) repeated.add(keyText);
      rows.set(keyText, {
        digest,
        key: keyOf(columns, row),
      });
    });
    return rows;
  };
  const [here, there] = await Promise.all([
    rowsOf(sourceRows(source, signal), false),
    rowsOf(sink.rows(signal), true),
  ]);
  const suspects: SinkRow[] = [];
  for (const [keyText, { digest, key }] of here) {
    if (!sameDigest(there.get(keyText)?.digest, digest)) suspects.push(key);
    there.delete(keyText);
  }
  return { suspects: [...suspects, ...[...there.values()].map(({ key }) => key)], repeated };
}

/**
 * Finds those of these keys that the sink gives more than once at another reading too: a row that moved while it was read may come
 * twice. A sink's `row` shows one of them, which may well be right.
 */
async function stillRepeated(
  columns: Columns,
  repeated: ReadonlySet<string>,
  maxRows: number,
  { sink, isParked, signal }: ComparisonOptions,
): Promise<RowDifference[]> {
  if (repeated.size === 0) return [];
  const seen = new Map<string, number>();
  const differences: RowDifference[] = [];
  await eachRow(columns, sink.rows(signal), (keyText, _, row) => {
    if (!repeated.has(keyText)) return;
    const times = (seen.get(keyText) ?? 0) + 1;
    seen.set(keyText, times);
    if (times !== 2 || differences.length >= maxRows) return;
    const key = keyOf(columns, row);
    differences.push({ kind: "repeated", parked: isParked(row), key, columns: [] });
  });
  return differences;
}

function keyOf({ key }: Columns, row: SinkRow): SinkRow {
  return Object.fromEntries(key.map(({ name }) => [name, row[name]]));
}

async function decide(
  columns: Columns,
  suspects: readonly SinkRow[],
  { source, sink, pass, isParked, signal }: ComparisonOptions,
): Promise<Pick<Comparison, "differences" | "behind" | "undecided">> {
  const differences: RowDifference[] = [];
  let open = suspects;
  for (let round = 1; open.length > 0; round++) {
    // Not the rows, which may be large.
    const before: { version: string | undefined; held: Digest | undefined }[] = [];
    for (const key of open) {
      const held = digestIn(columns, await sink.row(key, signal));
      before.push({ version: (await source.row(key))?.version, held });
    }
    const behind = await pass();
    const moved: SinkRow[] = [];
    const differ: RowDifference[] = [];
    for (const [i, key] of open.entries()) {
      const held = await sink.row(key, signal);
      const now = await source.row(key);
      const difference = compareRow(columns, key, now?.values, held);
      if (!difference) continue;
      const was = before[i];
      const still = now?.version === was?.version && sameDigest(digestIn(columns, held), was?.held);
      if (still) differ.push({ ...difference, parked: isParked(now?.values ?? held ?? key) });
      else moved.push(key);
    }
    if (behind.length > 0) return { differences, behind, undecided: differ.length + moved.length };
    differences.push(...differ);
    if (round === ROUNDS) return { differences, behind: [], undecided: moved.length };
    open = moved;
  }
  return { differences, behind: [], undecided: 0 };
}

function digestIn({ all }: Columns, row: SinkRow | undefined): Digest | undefined {
  return row && digestOf(comparableText(all, row));
}

function sameDigest(a: Digest | undefined, b: Digest | undefined): boolean {
  return a?.high === b?.high && a?.low === b?.low;
}

function compareRow(
  { all }: Columns,
  key: SinkRow,
  source: SinkRow | undefined,
  sink: SinkRow | undefined,
): Omit<RowDifference, "parked"> | undefined {
  if (!source) return sink && { kind: "extra", key, columns: [] };
  if (!sink) return { kind: "missing", key, columns: [] };
  const columns = differingColumns(all, source, sink);
  return columns.length === 0 ? undefined : { kind: "different", key, columns };
}
