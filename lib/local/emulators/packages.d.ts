/** The packages that come without types: what we use of them. */
declare module "kinesalite" {
  export default function kinesalite(options: {
    createStreamMs?: number;
    deleteStreamMs?: number;
    updateStreamMs?: number;
    shardLimit?: number;
  }): import("node:http").Server;
}

declare module "dynalite" {
  export default function dynalite(options: {
    createTableMs?: number;
    deleteTableMs?: number;
    updateTableMs?: number;
  }): import("node:http").Server;
}
