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
  /** The level store of one stream's records. */
  export interface StreamStore {
    batch(
      operations: readonly (
        | { type: "put"; key: string; value: { Data: string } }
        | { type: "del"; key: string }
      )[],
      ...rest: [options: object, done: (error?: Error) => void] | [done: (error?: Error) => void]
    ): void;
    put(key: string, value: { Data: string }, done: (error?: Error) => void): void;
  }
  const db: { create(options: object): { getStreamDb(name: string): StreamStore } };
  export default db;
}

declare module "dynalite" {
  export default function dynalite(options: {
    createTableMs?: number;
    deleteTableMs?: number;
    updateTableMs?: number;
  }): import("node:http").Server;
}
