import { execFileSync } from "node:child_process";
import { chmodSync, mkdtempSync, writeFileSync } from "node:fs";
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
  /** The same for both: whoever is connected to one comes to the other. */
  #port: number | undefined;

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
    const port = this.#port === undefined ? {} : { port: this.#port };
    const options = { dataDirectory, settings, binaries: this.#binaries, ...port };
    this.#server = await startEmbeddedPostgres(options);
    this.#port = this.#server.port;
    if (this.#url === "") this.#url = await freshDatabase(this.#server, { name: "shop" });
    this.#url = Object.assign(new URL(this.#server.url), { pathname: "/shop" }).toString();
  }

  /** The copy takes over as a standby does: on a timeline of its own. */
  async promote(): Promise<void> {
    writeFileSync(`${this.#dir}/copy/standby.signal`, "");
    await this.start("copy");
    await this.query("SELECT pg_promote()");
  }

  async stop(how: "fast" | "immediate"): Promise<void> {
    await this.#server?.stop(how);
    this.#server = undefined;
  }

  /** Whatever the primary has now. It goes on behind that, where it is not to stay down. */
  async copy(goesOn = true): Promise<void> {
    await this.stop("fast");
    execFileSync("rm", ["-rf", `${this.#dir}/copy`]);
    execFileSync("cp", ["-a", `${this.#dir}/primary`, `${this.#dir}/copy`]);
    if (goesOn) await this.start("primary");
  }

  async query(...statements: string[]): Promise<void> {
    const client = await superuser(this.#url);
    for (const sql of statements) await client.query(sql);
    await client.end();
  }
}
