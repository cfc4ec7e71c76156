import { execFile } from "node:child_process";
import { chown, copyFile, mkdtemp, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import { serverUser } from "../../lib/local/server-user.ts";
import {
  connect,
  connectionFromUrl,
  disconnect,
  withConnection,
} from "../../lib/source/postgres/link/connection.ts";
import type { PostgresConnectionOptions } from "../../lib/source/postgres/link/connection-options.ts";
import { eventually } from "../eventually.ts";
import { eachPostgres, freshDatabase, withPostgres } from "./server.ts";
import { superuser } from "./source.ts";

const run = promisify(execFile);
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** Connects and tells the error, or what the session is. */
async function attempt(options: PostgresConnectionOptions, replication = false) {
  try {
    const client = await connect(options, { replication, walSenderTimeoutMs: 7000 });
    cleanups.push(() => disconnect(client));
    return { client, error: undefined };
  } catch (error) {
    return { client: undefined, error: error as Error & { code?: string; remedy?: string; retry?: string } };
  }
}

eachPostgres("a session", (server) => {
  test("pins its settings against the database's and the role's", async () => {
    const url = await freshDatabase(server(), {
      settings: {
        datestyle: "SQL, DMY",
        statement_timeout: "1h",
        wal_sender_timeout: "1h",
        search_path: "x",
        lc_monetary: "POSIX",
        row_security: "on",
        default_transaction_read_only: "on",
        default_transaction_isolation: "serializable",
      },
    });
    const { client } = await attempt(connectionFromUrl(url), true);
    const shown = async (name: string) => {
      const { rows } = (await client?.query(`SHOW ${name}`)) ?? { rows: [] };
      return Object.values(rows[0] ?? {})[0];
    };
    expect(await shown("datestyle")).toBe("ISO, MDY");
    expect(await shown("statement_timeout")).toBe("0");
    expect(await shown("wal_sender_timeout")).toBe("7s");
    expect(await shown("search_path")).toBe("pg_catalog");
    expect(await shown("lc_monetary")).toBe("C");
    expect(await shown("row_security")).toBe("off");
    expect(await shown("default_transaction_read_only")).toBe("off");
    expect(await shown("transaction_isolation")).toBe("read committed");
    expect(await shown("client_encoding")).toBe("UTF8");
    expect(await shown("application_name")).toBe("tributary");
  });

  test("tells the limits of the role and of the database apart", async () => {
    const url = await freshDatabase(server());
    const client = await superuser(url);
    const name = new URL(url).pathname.slice(1);
    const role = `limited_${name}`;
    await client.query(`CREATE ROLE ${role} LOGIN PASSWORD 'x' CONNECTION LIMIT 0`);
    const limited = new URL(url);
    Object.assign(limited, { username: role, password: "x" });
    const refused = () => attempt(connectionFromUrl(limited.toString()));
    expect((await refused()).error).toMatchObject({
      code: "POSTGRES_NOT_READY",
      remedy: expect.stringContaining(`ALTER ROLE "${role}" CONNECTION LIMIT`),
    });
    await client.query(`ALTER ROLE ${role} CONNECTION LIMIT -1; ALTER DATABASE ${name} CONNECTION LIMIT 0`);
    expect((await refused()).error).toMatchObject({
      code: "POSTGRES_NOT_READY",
      remedy: expect.stringContaining(`ALTER DATABASE "${name}" CONNECTION LIMIT`),
    });
    await client.query(`ALTER DATABASE ${name} CONNECTION LIMIT -1`);
    expect((await refused()).error).toBeUndefined();
    await client.end();
  });

  test("of its own ends with what it was for, also where that fails", async () => {
    const options = connectionFromUrl(await freshDatabase(server()));
    const sessions: { readonly ended: boolean }[] = [];
    const work = (fails: boolean) =>
      withConnection(options, {}, async (client) => {
        const session = { ended: false };
        client.once("end", () => Object.assign(session, { ended: true }));
        sessions.push(session);
        const { rows } = await client.query(fails ? "SELECT 1/0" : "SELECT 7 AS seven");
        return rows[0].seven;
      });
    expect(await work(false)).toBe(7);
    await expect(work(true)).rejects.toThrow("division by zero");
    expect(sessions).toEqual([{ ended: true }, { ended: true }]);
  });

  test("takes an SQL_ASCII database as it is", async () => {
    const url = await freshDatabase(server(), { encoding: "SQL_ASCII" });
    const { client } = await attempt(connectionFromUrl(url));
    expect((await client?.query("SHOW client_encoding"))?.rows[0]).toEqual({ client_encoding: "SQL_ASCII" });
  });
});

describe("what can be wrong", () => {
  withPostgres((server) => {
    const good = () => connectionFromUrl(server().url);
    const bad: {
      what: string;
      change: () => Partial<PostgresConnectionOptions>;
      replication?: boolean;
      code: string;
      retry: string;
      remedy: RegExp;
    }[] = [
      {
        what: "nobody listens",
        change: () => ({ port: 1 }),
        code: "POSTGRES_UNREACHABLE",
        retry: "retry",
        remedy: /host and port/,
      },
      {
        what: "no such host",
        change: () => ({ host: "no-such-host.invalid" }),
        code: "POSTGRES_UNREACHABLE",
        retry: "retry",
        remedy: /host and port/,
      },
      {
        what: "a wrong password",
        change: () => ({ password: "wrong" }),
        code: "POSTGRES_AUTHENTICATION",
        retry: "stop",
        remedy: /PGPASSWORD/,
      },
      {
        what: "no password",
        change: () => ({ password: "" }),
        code: "POSTGRES_AUTHENTICATION",
        retry: "stop",
        remedy: /PGPASSWORD/,
      },
      {
        what: "a provider's wrong password",
        change: () => ({ password: async () => "wrong" }),
        code: "POSTGRES_AUTHENTICATION",
        retry: "retry",
        remedy: /PGPASSWORD/,
      },
      {
        what: "a provider that fails",
        change: () => ({
          password: async () => {
            throw new TypeError("no token");
          },
        }),
        code: "POSTGRES_AUTHENTICATION",
        retry: "retry",
        remedy: /rds-db:connect/,
      },
      {
        what: "no such user",
        change: () => ({ user: "nobody" }),
        code: "POSTGRES_AUTHENTICATION",
        retry: "stop",
        remedy: /user and password/,
      },
      {
        what: "no such database",
        change: () => ({ database: "nothing" }),
        code: "POSTGRES_DATABASE_MISSING",
        retry: "stop",
        remedy: /database name/,
      },
      {
        what: "no TLS there",
        change: () => ({ tls: { mode: "require" } }),
        code: "POSTGRES_TLS",
        retry: "stop",
        remedy: /ssl = on/,
      },
    ];
    test.each(bad)("$what → $code", async ({ change, code, retry, remedy }) => {
      const { error } = await attempt({ ...good(), ...change() });
      expect(error).toMatchObject({ code, retry, remedy: expect.stringMatching(remedy) });
      expect(`${error?.message} ${error?.remedy}`).not.toContain(good().password);
    });

    test("a role without REPLICATION, and one that may not connect", async () => {
      const admin = await superuser(server().url);
      cleanups.push(() => admin.end());
      await admin.query("CREATE ROLE plain LOGIN PASSWORD 'plain'");
      const plain = { ...good(), user: "plain", password: "plain" };
      expect((await attempt(plain)).error).toBeUndefined();
      expect((await attempt(plain, true)).error).toMatchObject({
        code: "POSTGRES_PERMISSION",
        remedy: expect.stringContaining('ALTER ROLE "plain" WITH REPLICATION'),
      });
      await admin.query("CREATE DATABASE closed; ").catch(() => {});
      await admin.query("REVOKE CONNECT ON DATABASE closed FROM PUBLIC");
      expect((await attempt({ ...plain, database: "closed" })).error).toMatchObject({
        code: "POSTGRES_PERMISSION",
        remedy: expect.stringContaining('GRANT CONNECT ON DATABASE "closed" TO "plain"'),
      });
    });

    test("a server that accepts and says nothing is given up", async () => {
      const silent = createServer(() => {});
      await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
      cleanups.push(() => silent.close());
      const port = (silent.address() as { port: number }).port;
      const { error } = await attempt({ ...good(), port, connectTimeoutMs: 200 });
      expect(error).toMatchObject({
        code: "POSTGRES_UNREACHABLE",
        message: expect.stringContaining("no answer"),
      });
      const stop = new AbortController();
      const waiting = connect({ ...good(), port }, { signal: stop.signal });
      stop.abort(new Error("enough"));
      await expect(waiting).rejects.toThrow("enough");
    });

    test("a pooler is told from a server", async () => {
      const say = (text: string) => {
        const fields = Buffer.from(`SFATAL\0C08P01\0M${text}\0\0`);
        const head = Buffer.alloc(5);
        head.write("E");
        head.writeInt32BE(fields.length + 4, 1);
        return Buffer.concat([head, fields]);
      };
      for (const text of [
        "unsupported startup parameter: replication",
        "Feature not supported: RDS Proxy currently doesn't support command-line options.",
      ]) {
        const pooler = createServer((socket) => void socket.once("data", () => socket.end(say(text))));
        await new Promise<void>((resolve) => pooler.listen(0, "127.0.0.1", resolve));
        cleanups.push(() => pooler.close());
        const port = (pooler.address() as { port: number }).port;
        expect((await attempt({ ...good(), port })).error).toMatchObject({
          code: "POSTGRES_POOLER",
          remedy: expect.stringContaining("instance"),
        });
      }
    });
  });
});

describe("TLS", () => {
  withPostgres((server) => {
    let ca = "";
    let otherCa = "";
    beforeAll(async () => {
      const directory = await mkdtemp(join(tmpdir(), "tributary-tls-"));
      const at = (name: string) => join(directory, name);
      const authority = async (name: string) => {
        await run("openssl", [
          ..."req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2".split(" "),
          "-subj",
          `/CN=${name}`,
          "-keyout",
          at(`${name}.key`),
          "-out",
          at(`${name}.crt`),
        ]);
        return readFile(at(`${name}.crt`), "utf8");
      };
      ca = await authority("authority");
      otherCa = await authority("other");
      await writeFile(at("names"), "subjectAltName=DNS:localhost");
      await run("openssl", [
        ..."req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes".split(" "),
        "-subj",
        "/CN=localhost",
        "-keyout",
        at("server.key"),
        "-out",
        at("server.csr"),
      ]);
      await run("openssl", [
        ..."x509 -req -days 2 -CAcreateserial".split(" "),
        "-in",
        at("server.csr"),
        "-CA",
        at("authority.crt"),
        "-CAkey",
        at("authority.key"),
        "-out",
        at("server.crt"),
        "-extfile",
        at("names"),
      ]);
      const user = serverUser();
      for (const name of ["server.key", "server.crt"]) {
        const target = join(server().dataDirectory, name);
        await copyFile(at(name), target);
        if (user.uid !== undefined && user.gid !== undefined) await chown(target, user.uid, user.gid);
      }
      const hba = join(server().dataDirectory, "pg_hba.conf");
      await writeFile(
        hba,
        `host all clear 127.0.0.1/32 password\nhost all old 127.0.0.1/32 md5\nhostssl all encrypted 127.0.0.1/32 scram-sha-256\n${await readFile(hba, "utf8")}`.replace(
          "scram-sha-256\n",
          "scram-sha-256\nhost all encrypted 127.0.0.1/32 reject\n",
        ),
      );
      await server().restart({ settings: { ssl: "on" } });
      const admin = await superuser(server().url);
      await admin.query("CREATE ROLE clear LOGIN PASSWORD 'clear'");
      await admin.query("CREATE ROLE encrypted LOGIN REPLICATION PASSWORD 'encrypted'");
      await admin.query("SET password_encryption = 'md5'; CREATE ROLE old LOGIN PASSWORD 'old'");
      await admin.end();
    });

    const to = (
      host: string,
      tls: PostgresConnectionOptions["tls"],
      user?: string,
    ): PostgresConnectionOptions => ({
      ...connectionFromUrl(server().url),
      host,
      tls,
      ...(user ? { user, password: user } : {}),
    });
    const encrypted = async (client: NonNullable<Awaited<ReturnType<typeof attempt>>["client"]>) =>
      (await client.query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")).rows[0].ssl as boolean;

    test("disable, require and verify-full do what they say", async () => {
      const plain = await attempt(to("localhost", { mode: "disable" }));
      expect(await encrypted(plain.client as never)).toBe(false);
      const required = await attempt(to("127.0.0.1", { mode: "require" }));
      expect(await encrypted(required.client as never)).toBe(true);
      const verified = await attempt(to("localhost", { mode: "verify-full", ca }));
      expect(await encrypted(verified.client as never)).toBe(true);
    });

    test("verify-full refuses another name, an unknown authority, and a self-made one", async () => {
      expect((await attempt(to("127.0.0.1", { mode: "verify-full", ca }))).error).toMatchObject({
        code: "POSTGRES_TLS",
        remedy: expect.stringContaining("name"),
      });
      for (const tls of [{ mode: "verify-full", ca: otherCa } as const, { mode: "verify-full" } as const]) {
        expect((await attempt(to("localhost", tls))).error).toMatchObject({
          code: "POSTGRES_TLS",
          remedy: expect.stringContaining("TRIBUTARY_TLS_CA_FILE"),
        });
      }
    });

    test("a clear-text password leaves us only to a server that was verified", async () => {
      expect((await attempt(to("localhost", { mode: "verify-full", ca }, "clear"))).error).toBeUndefined();
      for (const mode of ["disable", "require"] as const)
        expect((await attempt(to("127.0.0.1", { mode }, "clear"))).error).toMatchObject({
          code: "POSTGRES_TLS",
        });
    });

    test("an MD5 password never leaves us", async () => {
      expect((await attempt(to("localhost", { mode: "verify-full", ca }, "old"))).error).toMatchObject({
        code: "POSTGRES_AUTHENTICATION",
        retry: "stop",
        remedy: expect.stringContaining("scram-sha-256"),
      });
    });

    test("a server that lets in TLS only says so", async () => {
      expect((await attempt(to("127.0.0.1", { mode: "disable" }, "encrypted"))).error).toMatchObject({
        code: "POSTGRES_AUTHENTICATION",
        remedy: expect.stringContaining("TRIBUTARY_TLS=verify-full"),
      });
    });

    test("a replication session runs under TLS, and its bytes are counted", async () => {
      const { client } = await attempt(to("localhost", { mode: "verify-full", ca }, "encrypted"), true);
      const stream = client?.connection.stream as unknown as { bytesRead: number };
      const before = stream.bytesRead;
      await client?.query("IDENTIFY_SYSTEM");
      await eventually(() => stream.bytesRead > before, { what: "bytes to be counted", deadlineMs: 5000 });
    });
  });
});
