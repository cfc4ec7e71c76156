import type { Server } from "node:http";
import kinesalite from "kinesalite";
import db, { type StoredRecord, type StreamStore } from "kinesalite/db/index.js";
import { type ArrivalsOf, answersAtTimestamp } from "./at-timestamp.ts";
import type { StreamLog } from "./stream-log.ts";

/**
 * A Kinesis emulator that forgets the oldest records of a stream above `retainedBytes`, as a real stream does after
 * its retention time: kept whole, a stream would fill the memory of a machine on which the demo runs overnight. `log` follows what
 * is written.
 */
export function boundedKinesis(retainedBytes: number, log?: StreamLog): Server {
  const create = db.create;
  const arrivals: ArrivalsOf = new Map();
  // The server hands its store to nobody, and takes it from here.
  db.create = (options) => {
    const store = create(options);
    log?.follow(store);
    const bounded = new WeakSet<StreamStore>();
    const streamStore = store.getStreamDb;
    store.getStreamDb = (name) => {
      const stream = streamStore(name);
      if (!bounded.has(stream)) {
        const last = new Map<string, number>();
        arrivals.set(name, last);
        bound(stream, retainedBytes, last);
      }
      bounded.add(stream);
      return stream;
    };
    return store;
  };
  try {
    const times = { createStreamMs: 10, deleteStreamMs: 10, updateStreamMs: 10 };
    return answersAtTimestamp(kinesalite({ ...times, shardLimit: 1000 }), arrivals);
  } finally {
    db.create = create;
  }
}

function bound(stream: StreamStore, retainedBytes: number, arrivals: Map<string, number>): void {
  const kept: { key: string; bytes: number }[] = [];
  let bytes = 0;
  const batch = stream.batch.bind(stream);
  const put = stream.put.bind(stream);
  const note = (key: string, { Data, ApproximateArrivalTimestamp }: StoredRecord) => {
    arrivals.set(key.slice(0, key.indexOf("/")), ApproximateArrivalTimestamp);
    kept.push({ key, bytes: Data.length });
    bytes += Data.length;
    if (bytes <= retainedBytes) return;
    let count = 0;
    // A quarter at once, so that it happens rarely.
    while (bytes > retainedBytes * 0.75) bytes -= kept[count++]?.bytes ?? bytes;
    const gone = kept.splice(0, count);
    batch(
      gone.map(({ key }) => ({ type: "del", key })),
      {},
      () => {},
    );
  };
  stream.batch = (operations, ...rest) => {
    const done = rest.pop() as (error?: Error) => void;
    const options = rest[0] ?? {};
    batch(operations, options, (error) => {
      for (const operation of operations) {
        if (operation.type === "put") note(operation.key, operation.value);
      }
      done(error);
    });
  };
  stream.put = (key, value, done) =>
    put(key, value, (error) => {
      note(key, value);
      done(error);
    });
}
