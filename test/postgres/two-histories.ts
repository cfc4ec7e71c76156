import { execFileSync } from "node:child_process";
import { chmodSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { type EmbeddedPostgres, startEmbeddedPostgres } from "../../lib/local/embedded-postgres.ts";
import type { PostgresBinaries } from "../../lib/local/postgres-binaries.ts";
import { freshDatabase } from "./server.ts";
import { superuser } from "./source.ts";

/** A server, and what a standby or a snapshot has of it. */
export class TwoHistories {
  readonly #dir = mkdtempSync(`${tmpdir()}/forked-`);
  readonly #binaries: PostgresBinaries;
  #server: EmbeddedPostgres | undefined;
  #url = "";

  constructor(binaries: PostgresBinaries) {
    this.#binaries = binaries;
    chmodSync(this.#dir, 0o755);
  }

  /** Stops what runs, and removes all of it. */
  async end(): Promise<void> {
    await this.stop("immediate");
    execFileSync("rm", ["-rf", this.#dir]);
  }

  /** Of its database `shop`, on the server that runs now. */
  get url(): string {
    return this.#url;
  }

  /** `copy`: what the standby has. */
  async start(which: "primary" | "copy"): Promise<void> {
    const settings = { wal_level: "logical", autovacuum: "off" };
    const dataDirectory = `${this.#dir}/${which}`;
    this.#server = await startEmbeddedPostgres({ dataDirectory, settings, binaries: this.#binaries });
    if (this.#url === "") this.#url = await freshDatabase(this.#server, { name: "shop" });
    this.#url = Object.assign(new URL(this.#server.url), { pathname: "/shop" }).toString();
  }

  async stop(how: "fast" | "immediate"): Promise<void> {
    await this.#server?.stop(how);
    this.#server = undefined;
  }

  async copy(): Promise<void> {
    await this.stop("fast");
    execFileSync("cp", ["-a", `${this.#dir}/primary`, `${this.#dir}/copy`]);
    await this.start("primary");
  }

  async query(...statements: string[]): Promise<void> {
    const client = await superuser(this.#url);
    for (const sql of statements) await client.query(sql);
    await client.end();
  }
}
