import type { Server } from "node:http";
import kinesalite from "kinesalite";
import db, { type StreamStore } from "kinesalite/db/index.js";

/**
 * A Kinesis emulator that forgets the oldest records of a stream above `retainedBytes`, as a real stream does after
 * its retention time: kept whole, a stream would fill the memory of a machine on which the demo runs overnight.
 */
export function boundedKinesis(retainedBytes: number): Server {
  const create = db.create;
  // The server hands its store to nobody, and takes it from here.
  db.create = (options) => {
    const store = create(options);
    const bounded = new WeakSet<StreamStore>();
    const streamStore = store.getStreamDb;
    store.getStreamDb = (name) => {
      const stream = streamStore(name);
      if (!bounded.has(stream)) bound(stream, retainedBytes);
      bounded.add(stream);
      return stream;
    };
    return store;
  };
  try {
    return kinesalite({ createStreamMs: 10, deleteStreamMs: 10, updateStreamMs: 10, shardLimit: 1000 });
  } finally {
    db.create = create;
  }
}

function bound(stream: StreamStore, retainedBytes: number): void {
  const kept: { key: string; bytes: number }[] = [];
  let bytes = 0;
  const batch = stream.batch.bind(stream);
  const put = stream.put.bind(stream);
  const note = (key: string, data: string) => {
    kept.push({ key, bytes: data.length });
    bytes += data.length;
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
        if (operation.type === "put") note(operation.key, operation.value.Data);
      }
      done(error);
    });
  };
  stream.put = (key, value, done) =>
    put(key, value, (error) => {
      note(key, value.Data);
      done(error);
    });
}
