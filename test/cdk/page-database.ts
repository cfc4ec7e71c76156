import pg from "pg";
import { type EmbeddedPostgres, startEmbeddedPostgres } from "../../lib/local/embedded-postgres.ts";

/** The role of the pages' URLs. */
const [ROLE, PASSWORD] = ["me", "secret"];

/** The server that the pages' URLs are of, `postgres://me:secret@localhost/…`, on a port of its own. */
export class PageDatabase {
  readonly #server: EmbeddedPostgres;
  readonly #names = new Set<string>();
  #rows = 0;

  private constructor(server: EmbeddedPostgres) {
    this.#server = server;
  }

  /** Starts the server, with the role as docs/05-postgres.md says: it owns its tables and makes its publication itself. */
  static async start(): Promise<PageDatabase> {
    const database = new PageDatabase(await startEmbeddedPostgres());
    await database.#query("postgres", `CREATE ROLE ${ROLE} LOGIN REPLICATION PASSWORD '${PASSWORD}'`);
    return database;
  }

  /** The words of a command with the server's address in the place of `localhost`; the database is made, with a table `orders`. */
  async reached(words: readonly string[]): Promise<string[]> {
    const reached: string[] = [];
    for (const word of words) {
      const [, name] = new RegExp(`^postgres://${ROLE}:${PASSWORD}@localhost/(\\w+)$`).exec(word) ?? [];
      if (name !== undefined) await this.#make(name);
      reached.push(name === undefined ? word : this.#url(name));
    }
    return reached;
  }

  /** Places an order in the database that a command was given; returns its number. */
  async order(words: readonly string[]): Promise<string> {
    const name = [...this.#names].find((known) => words.includes(this.#url(known)));
    if (name === undefined) throw new Error(`no database of ours in: ${words.join(" ")}`);
    const number = `order-${++this.#rows}`;
    await this.#query(name, `INSERT INTO orders (number) VALUES ('${number}')`);
    return number;
  }

  async stop(): Promise<void> {
    await this.#server.stop("immediate");
  }

  async #make(name: string): Promise<void> {
    if (this.#names.has(name)) return;
    await this.#query("postgres", `CREATE DATABASE ${name}`);
    await this.#query(
      name,
      `GRANT CREATE ON DATABASE ${name} TO ${ROLE};
       CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, number text NOT NULL);
       ALTER TABLE orders OWNER TO ${ROLE};`,
    );
    this.#names.add(name);
  }

  #url(name: string): string {
    return `postgres://${ROLE}:${PASSWORD}@${this.#server.host}:${this.#server.port}/${name}`;
  }

  async #query(name: string, sql: string): Promise<void> {
    const url = new URL(this.#server.url);
    url.pathname = name;
    const client = new pg.Client({ connectionString: url.href });
    await client.connect();
    try {
      await client.query(sql);
    } finally {
      await client.end();
    }
  }
}
