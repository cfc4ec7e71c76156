import { shellWord } from "../../../change/printed-command.ts";
import { formatTable } from "../../../change/table-pattern.ts";
import type { Log } from "../../../log.ts";
import type { TextQuery } from "../link/connection-options.ts";
import type { ContractTable } from "./difference.ts";
import {
  type Leaf,
  type LeavesByRoot,
  readLeaves,
  readLeavesHash,
  type SightedLeaf,
  stillThere,
  storedLeaves,
  wasFilled,
} from "./leaves.ts";
import type { Sighting } from "./terms.ts";
import type { Loss } from "./unhealed-tables.ts";

/** A TRUNCATE of a whole partitioned table that came in the log. */
export interface RootTruncate {
  readonly root: number;
  readonly xid: number;
}

/** Dependencies of `PartitionWatch`. */
export interface PartitionWatchOptions {
  /** The captured tables; those that are partitioned count. */
  readonly tables: readonly ContractTable[];
  /** The partitions as they were last looked at; undefined: the first look takes them as they are. */
  readonly leaves: LeavesByRoot | undefined;
  readonly seen: Sighting | undefined;
  /** Fate of the rows of partitions that are removed: they stay in the sinks, or a sweep removes them. */
  readonly removed: "keep" | "sweep";
  /** True if the rows of a filled table that is attached are read without being asked for. */
  readonly readsAttached: boolean;
  readonly query: TextQuery;
  readonly log: Log;
  /** Up to here the log was read. */
  readonly received: () => bigint;
  /** Truncates of partitioned tables that came in the log and may not have been looked at. */
  readonly truncates: () => readonly RootTruncate[];
  /** Puts losses on record. */
  readonly note: (losses: readonly Loss[]) => Promise<void>;
  /** Puts on record how the partitions are now; all truncates before `seen` are looked at. */
  readonly store: (leaves: LeavesByRoot, seen: Sighting) => Promise<void>;
}

interface PartitionLook {
  readonly found: readonly SightedLeaf[];
  readonly hash: string;
  readonly seen: Sighting;
}

/**
 * Looks at the partitions of captured tables: published through their root, the server does not send that one of them was truncated,
 * detached, dropped, or attached with rows in it.
 */
export class PartitionWatch {
  readonly #options: PartitionWatchOptions;
  readonly #roots: ReadonlyMap<number, ContractTable>;
  #leaves: LeavesByRoot | undefined;
  #seen: Sighting | undefined;
  #hash: string | undefined;
  /** A look that waits until the log was read as far: a root's own TRUNCATE may stand before. */
  #waiting: PartitionLook | undefined;

  constructor(options: PartitionWatchOptions) {
    this.#options = options;
    this.#roots = new Map(
      options.tables.filter(({ kind }) => kind === "p").map((table) => [table.oid, table]),
    );
    this.#leaves = options.leaves;
    this.#seen = options.seen;
  }

  /** That the server did not answer is passed over: the next look tells. @throws what the records throw */
  async look(seen: Sighting): Promise<void> {
    if (this.#roots.size === 0) return;
    let look: PartitionLook | undefined;
    let found: PartitionFindings;
    try {
      look = this.#waiting ?? (await this.#read(seen));
      if (!look) return;
      found = await this.#compare(look);
    } catch {
      return;
    }
    const rewritten = found.rewritten.length > 0;
    if (rewritten && this.#options.received() < look.seen.lsn) {
      this.#waiting = look;
      return;
    }
    this.#waiting = undefined;
    await this.#tell(found, look);
    const leaves = storedLeaves([...this.#roots.keys()], look.found);
    if (JSON.stringify(leaves) !== JSON.stringify(this.#leaves)) await this.#options.store(leaves, look.seen);
    [this.#leaves, this.#seen, this.#hash] = [leaves, look.seen, look.hash];
  }

  /** Undefined: nothing is new. */
  async #read(seen: Sighting): Promise<PartitionLook | undefined> {
    const { query } = this.#options;
    const roots = [...this.#roots.keys()];
    const hash = await readLeavesHash(query, roots);
    if (hash === this.#hash) {
      this.#seen = seen;
      return undefined;
    }
    return { found: await readLeaves(query, roots), hash, seen };
  }

  async #compare({ found }: PartitionLook): Promise<PartitionFindings> {
    const { query } = this.#options;
    const changes: PartitionFindings = { removed: [], rewritten: [], joined: [], again: [] };
    for (const [oid, root] of this.#roots) {
      const before = this.#leaves?.[String(oid)];
      // New to the definition: its rows are read as a whole.
      if (!before) continue;
      const now = found.filter((one) => one.root === oid);
      for (const old of before) {
        const leaf = now.find((one) => one.oid === old.oid);
        if (!leaf) changes.removed.push({ root, leaf: old, dropped: false });
        else if (leaf.edges.join() !== old.edges.join()) changes.again.push({ root, leaf });
        else if (leaf.file !== old.file && leaf.space === old.space) changes.rewritten.push({ root, leaf });
      }
      for (const leaf of now)
        if (leaf.attached && !before.some((old) => old.oid === leaf.oid)) changes.joined.push({ root, leaf });
    }
    const there = await stillThere(
      query,
      changes.removed.map(({ leaf }) => leaf.oid),
    );
    const filled = new Set<number>();
    for (const { root, leaf } of changes.joined) if (await wasFilled(query, leaf, root)) filled.add(leaf.oid);
    return {
      ...changes,
      removed: changes.removed.map((one) => ({ ...one, dropped: !there.has(one.leaf.oid) })),
      joined: changes.joined.filter(({ leaf }) => filled.has(leaf.oid)),
    };
  }

  async #tell(
    { removed, rewritten, joined, again }: PartitionFindings,
    { seen, found }: PartitionLook,
  ): Promise<void> {
    const { note, readsAttached: asks } = this.#options;
    const since = this.#seen ?? seen;
    const missing = (root: ContractTable, reason: string): Loss => ({
      table: formatTable(root),
      reason,
      since,
      until: seen,
      asks,
    });
    await note([
      ...joined.map(({ root, leaf }) =>
        missing(root, `${formatTable(leaf)} was attached with rows in it, which are not in the stream`),
      ),
      ...again.map(({ root, leaf }) =>
        missing(
          root,
          `${formatTable(leaf)} was detached and attached again, and what was changed in between is not in the stream`,
        ),
      ),
    ]);
    const gone = removed.map(({ root, leaf, dropped }) => ({
      root,
      what: dropped
        ? `${formatTable(leaf)}, a partition of ${formatTable(root)}, was dropped`
        : `${formatTable(leaf)} was detached from ${formatTable(root)}`,
    }));
    const emptied = rewritten
      .filter(({ root, leaf }) => !this.#cameInTheLog(root, leaf, found))
      .map(({ root, leaf }) => ({
        root,
        what: `${formatTable(leaf)}, a partition of ${formatTable(root)}, was truncated${leaf.unknownRows ? "" : ", or written anew as VACUUM FULL and CLUSTER do"}`,
      }));
    await this.#tellRemoved([...gone, ...emptied], since, seen);
  }

  async #tellRemoved(
    removed: readonly { readonly root: ContractTable; readonly what: string }[],
    since: Sighting,
    until: Sighting,
  ): Promise<void> {
    const { log, note } = this.#options;
    if (this.#options.removed === "sweep") {
      await note(
        removed.map(({ root, what }) => ({
          ...{ table: formatTable(root), reason: `${what}: sinks hold rows of it`, since, until },
          asks: true,
        })),
      );
      return;
    }
    for (const { root, what } of removed) {
      log.warn(`${what}: rows that were in it stay in the sinks`, {
        code: "PARTITION_REMOVED",
        remedy: `If that is right, nothing. To remove them from the sinks, read the table again, with a sweep: tributary backfill start --table ${shellWord(formatTable(root))}. Or let that be done each time: source.partitions: { removed: "sweep" }.`,
      });
    }
  }

  /** Returns true if a partition was truncated with its whole table, which the log tells. */
  #cameInTheLog(root: ContractTable, leaf: SightedLeaf, found: readonly SightedLeaf[]): boolean {
    const truncates = this.#options.truncates().filter((one) => one.root === root.oid);
    if (truncates.some(({ xid }) => String(xid) === leaf.xmin)) return true;
    // In a subtransaction the catalog shows that one's number, and the log the whole transaction's.
    const all = found.filter((one) => one.root === root.oid);
    return truncates.length > 0 && all.every(({ xmin }) => xmin === leaf.xmin);
  }
}

interface OfRoot<T> {
  readonly root: ContractTable;
  readonly leaf: T;
}

interface PartitionFindings {
  readonly removed: (OfRoot<Leaf> & { readonly dropped: boolean })[];
  /** Their rows are in another file. */
  readonly rewritten: OfRoot<SightedLeaf>[];
  /** Attached since, with rows. */
  readonly joined: OfRoot<SightedLeaf>[];
  readonly again: OfRoot<SightedLeaf>[];
}
