import type { ChangeStream, SourceChange, SourceMessage } from "../../lib/change/change-stream.ts";
import { EncodedChange } from "../../lib/change/encoded-change.ts";
import { formatLsn } from "../../lib/change/lsn.ts";
import { formatPosition } from "../../lib/change/position.ts";
import type { Topic } from "../../lib/change/topic.ts";

/** A change as a source gives it: an insert of one row, event left open inside `source`. */
export function change(
  topic: Topic,
  partition: number,
  commitLsn: bigint,
  ordinal: number,
  text = "",
): SourceChange {
  const source = `"connector":"postgresql","schema":"public","table":"orders","commitLsn":"${formatLsn(commitLsn)}","ordinal":${ordinal},"epoch":1`;
  return {
    kind: "change",
    topic,
    partition,
    position: formatPosition({ epoch: 1, commitLsn, ordinal }),
    json: `{"op":"c","before":null,"after":${JSON.stringify({ text })},"ts_ms":0,"source":{${source}`,
    table: "public.orders",
  };
}

/** The same change as a source gives it that writes UTF-8 at once, among the bytes of others. */
export function encoded({ topic, partition, table, position, json }: SourceChange): EncodedChange {
  const bytes = Buffer.from(`another${json}${position}another`);
  const start = "another".length;
  return new EncodedChange(topic, partition, table, {
    piece: { bytes, held: 0 },
    start,
    end: start + Buffer.byteLength(json),
  });
}

/** A source that gives these batches (waiting where one is a promise) and notes what is acknowledged. */
export function sourceOf(
  batches: Iterable<readonly SourceMessage[]> | AsyncIterable<readonly SourceMessage[]>,
): ChangeStream & { readonly acknowledged: bigint[] } {
  const acknowledged: bigint[] = [];
  return {
    changes: (async function* () {
      yield* batches;
    })(),
    acknowledged,
    acknowledge: (lsn) => void acknowledged.push(lsn),
    close: async () => {},
  };
}
