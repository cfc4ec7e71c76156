/** The packages that come without types: what we use of them. */
declare module "kinesalite" {
  export default function kinesalite(options: {
    createStreamMs?: number;
    deleteStreamMs?: number;
    updateStreamMs?: number;
    shardLimit?: number;
  }): import("node:http").Server;
}

declare module "kinesalite/db/index.js" {
  /** A record as it is kept. */
  export interface StoredRecord {
    Data: string;
    /** Seconds since 1970 UTC. */
    ApproximateArrivalTimestamp: number;
  }
  /** The level store of one stream's records; a key is `<shard>/<sequence number>`. */
  export interface StreamStore {
    batch(
      operations: readonly (
        | { type: "put"; key: string; value: StoredRecord }
        | { type: "del"; key: string }
      )[],
      ...rest: [options: object, done: (error?: Error) => void] | [done: (error?: Error) => void]
    ): void;
    put(key: string, value: StoredRecord, done: (error?: Error) => void): void;
  }
  /** Streams by name, and their records. */
  export interface Store {
    readonly metaDb: {
      put(key: string, value: unknown, done: (error?: Error) => void): void;
      del(key: string, done: (error?: Error) => void): void;
    };
    getStreamDb(name: string): StreamStore;
  }
  const db: {
    create(options: object): Store;
    /** Form of a shard's number in keys. */
    shardIxToHex(shard: number): string;
  };
  export default db;
}

declare module "dynalite" {
  export default function dynalite(options: {
    /** Directory of a LevelDB; without it everything is in memory. */
    path?: string;
    createTableMs?: number;
    deleteTableMs?: number;
    updateTableMs?: number;
  }): import("node:http").Server;
}
