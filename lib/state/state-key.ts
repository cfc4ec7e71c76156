/**
 * Keys of the one state table: partition key `pk`, sort key `sk`, both strings; `expiresAt` (seconds since 1970) is
 * its TTL attribute. Everything of one pipeline starts with its name, so that several pipelines may share a table.
 */
export interface StateKey {
  readonly pk: string;
  readonly sk: string;
}

/** A capture task's lease, slot state and stored settings: one item for each slot. */
export function captureKey(pipeline: string, slot = 1): StateKey {
  return { pk: `${pipeline}#capture`, sk: slot === 1 ? "capture" : `capture#${slot}` };
}

/** A part of a long attribute of that item (`capture-parts.ts`); an empty one: the beginning of all of them. */
export function capturePartKey(
  pipeline: string,
  slot: number | undefined,
  attribute: string,
  part: string,
): StateKey {
  return { pk: `${pipeline}#capture`, sk: `part#${slot ?? 1}#${attribute}#${part}` };
}

/**
 * The reports of a slot's capture tasks on themselves, apart from what they hold under the lease. `seat`: see `capture-report.ts`.
 * Without a slot: what all of them begin with.
 */
export function captureReportKey(pipeline: string, slot?: number, seat = ""): StateKey {
  return { pk: `${pipeline}#capture-reports`, sk: `slot#${slot === undefined ? "" : `${slot}#${seat}`}` };
}

/** The item that the stack writes last of all. */
export function deployedKey(pipeline: string): StateKey {
  return { pk: captureKey(pipeline).pk, sk: "deployed" };
}

/** The version of a pipeline's items: `state-format.ts`. */
export function stateFormatKey(pipeline: string): StateKey {
  return { pk: captureKey(pipeline).pk, sk: "format" };
}

/** Some of the keys that polling knows of its tables. Without a number: what all of them begin with. */
export function knownKeysKey(pipeline: string, part?: number): StateKey {
  return { pk: `${pipeline}#keys`, sk: `part#${part ?? ""}` };
}

/** The backfill of one table. Without a table: what all of them begin with. */
export function backfillKey(pipeline: string, table?: string): StateKey {
  return { pk: `${pipeline}#backfills`, sk: `table#${table ?? ""}` };
}

/** Counts what operators asked of backfills: one small read tells whether there is anything new. */
export function backfillBellKey(pipeline: string): StateKey {
  return { pk: `${pipeline}#backfills`, sk: "bell" };
}

/** The rows of one table that are to be read again. Without a table: the beginning of all of them. */
export function rereadKey(pipeline: string, table?: string): StateKey {
  return { pk: `${pipeline}#rereads`, sk: `table#${table ?? ""}` };
}

/** A held topic. Without a topic: what all of them begin with. */
export function holdKey(pipeline: string, topic?: string): StateKey {
  return { pk: `${pipeline}#holds`, sk: `topic#${topic ?? ""}` };
}

/** A segment of a held topic's changes: where its object stands. */
export function holdSegmentKey(pipeline: string, topic: string, index: number): StateKey {
  return { pk: `${pipeline}#hold-segments`, sk: `${topic}#${String(index).padStart(10, "0")}` };
}

/** A table of which changes may be missing. Without a table: what all of them begin with. */
export function unhealedKey(pipeline: string, table?: string): StateKey {
  return { pk: `${pipeline}#unhealed`, sk: `table#${table ?? ""}` };
}

/** A change that was put aside at capture. Without one: what all of them begin with. */
export function asideKey(
  pipeline: string,
  change?: { readonly topic: string; readonly position: string },
): StateKey {
  const sk = `change#${change ? `${change.topic}#${change.position}` : ""}`;
  return { pk: `${pipeline}#put-aside`, sk };
}

/** A change that an operator wants put aside. Without a position: what all of them begin with. */
export function wantedAsideKey(pipeline: string, position?: string): StateKey {
  return { pk: `${pipeline}#put-aside`, sk: `wanted#${position ?? ""}` };
}

/** What is paused: `capture`, or `consumer#` and a name. Without one: what all of them begin with. */
export function pauseKey(pipeline: string, target = ""): StateKey {
  return { pk: `${pipeline}#pauses`, sk: target };
}

/** A consumer of a pipeline. */
export interface OfConsumer {
  readonly pipeline: string;
  readonly consumer: string;
}

function consumerKey({ pipeline, consumer }: OfConsumer, part: string, sk: string): StateKey {
  return { pk: `${pipeline}#consumer#${consumer}${part}`, sk };
}

/** The start position of a consumer: changes at or before it are not its business. */
export function startPositionKey(of: OfConsumer): StateKey {
  return consumerKey(of, "", "floor");
}

/** The checkpoints of one group of a topic's partitions. */
export function fenceKey(of: OfConsumer, topic: string, group: number): StateKey {
  return consumerKey(of, "", `fence#${topic}#${group}`);
}

/** The claim of one event by a `once` handler. */
export function claimKey(of: OfConsumer, claim: string): StateKey {
  return consumerKey(of, `#claim#${claim}`, "claim");
}

/** One parked or dead change of a key. Apart from the fence, so that its reads and writes do not slow that down. */
export function parkedChangeKey(
  of: OfConsumer,
  topic: string,
  partition: number,
  chain: string,
  position: string,
): StateKey {
  return consumerKey(of, "#parked", `change#${topic}/${partition}#${chain}#${position}`);
}

/** A record that cannot be read and is too large for the dead-letter queue: what its pieces' sort keys begin with. */
export function deadRecordKey(of: OfConsumer, shardId: string, sequenceNumber: string): StateKey {
  return consumerKey(of, "#records", `record#${shardId}/${sequenceNumber}#`);
}

/** A version of the list of a partition's parked keys; without one: the beginning of all of them. */
export function parkedListKey(
  of: OfConsumer,
  { topic, partition }: { readonly topic: string; readonly partition: number },
  version: string,
): StateKey {
  return consumerKey(of, "#parked", `keys#${topic}/${partition}#${version}`);
}

/** The record of a key's open dead letter. Without a place: the beginning of all of a consumer's. */
export function deadLetterKey(
  of: OfConsumer,
  place?: { readonly topic: string; readonly partition: number; readonly chain: string },
): StateKey {
  return consumerKey(
    of,
    "#parked",
    place ? `letter#${place.topic}/${place.partition}#${place.chain}` : "letter#",
  );
}

/** Changes that are missing at a consumer, by their last position. Without one: the beginning of a partition's; without a place: of all. */
export function missingKey(
  of: OfConsumer,
  place?: { readonly topic: string; readonly partition: number; readonly upTo?: string },
): StateKey {
  return consumerKey(
    of,
    "#missing",
    place ? `missing#${place.topic}/${place.partition}#${place.upTo ?? ""}` : "missing#",
  );
}

/** The last reset of a consumer: what an operator wanted, and how far that has come. */
export function resetKey(of: OfConsumer): StateKey {
  return consumerKey(of, "#reset", "reset");
}

/** Progress of a consumer in a shard of the stream. */
export function shardKey(of: OfConsumer, shardId: string): StateKey {
  return consumerKey(of, "#shards", `shard#${shardId}`);
}

/** Records that a consumer's partition holds; `record` begins with a sequence number that sorts. */
export function heldRecordsKey(
  of: OfConsumer,
  topic: string,
  partition: number,
  hold: string,
  record: string,
): StateKey {
  return consumerKey(of, "#held", `hold#${topic}/${partition}#${hold}#${record}`);
}
