import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { ConfigurationError } from "../../../lib/change/tributary-error.ts";
import { connectionFromEnvironment } from "../../../lib/source/postgres/link/connection.ts";

const ca = join(mkdtempSync(join(tmpdir(), "tributary-ca-")), "ca.pem");
writeFileSync(ca, "-----BEGIN CERTIFICATE-----");

test("a URL with everything odd about it", () => {
  expect(
    connectionFromEnvironment({
      DATABASE_URL: `postgresql://us%40er:p%2Fa%3Ass@[2001:db8::1]:6543/my%20db?sslmode=verify-full&sslrootcert=${ca}`,
    }),
  ).toEqual({
    host: "2001:db8::1",
    port: 6543,
    user: "us@er",
    password: "p/a:ss",
    database: "my db",
    tls: { mode: "verify-full", ca: "-----BEGIN CERTIFICATE-----" },
  });
});

test("parts, with the password apart", () => {
  expect(
    connectionFromEnvironment({
      PGHOST: "db",
      PGUSER: "u",
      PGDATABASE: "d",
      PGPASSWORD: "s",
      TRIBUTARY_TLS: "require",
    }),
  ).toEqual({ host: "db", port: 5432, user: "u", database: "d", password: "s", tls: { mode: "require" } });
});

test("without a choice TLS is verify-full, and off to the own machine", () => {
  const mode = (host: string) =>
    connectionFromEnvironment({ DATABASE_URL: `postgres://u:p@${host}/d` }).tls.mode;
  expect(mode("db.example.com")).toBe("verify-full");
  expect(mode("localhost.example.com")).toBe("verify-full");
  expect(["localhost", "127.0.0.1", "[::1]"].map(mode)).toEqual(["disable", "disable", "disable"]);
});

test.each([
  [{}, "DATABASE_URL", "set postgres://"],
  [{ DATABASE_URL: "mysql://u:secret@h/d" }, "DATABASE_URL", "write postgres://"],
  [{ DATABASE_URL: "postgres://u:sec%ret@h/d" }, "DATABASE_URL", "per-cent encoded"],
  [{ DATABASE_URL: "postgres://u:secret@h" }, "PGDATABASE", "name the database"],
  [{ DATABASE_URL: "postgres://h/d" }, "PGUSER", "name the role"],
  [{ PGUSER: "u", PGDATABASE: "d", PGPORT: "1", DATABASE_URL: "" }, "DATABASE_URL", "set postgres://"],
  [{ PGHOST: "h", PGUSER: "u", PGDATABASE: "d", PGPORT: "70000" }, "PGPORT", "port number"],
  [{ DATABASE_URL: "postgres://u:secret@a,b:1,c:2x/d" }, "DATABASE_URL", "postgres://"],
  [{ DATABASE_URL: "postgres://u:secret@a,,c/d" }, "PGHOST", "name each server"],
  [
    { DATABASE_URL: "postgres://u:secret@a,b/d?target_session_attrs=any" },
    "DATABASE_URL",
    "read-write or primary",
  ],
  [{ PGHOST: "a,b,c", PGPORT: "1,2", PGUSER: "u", PGDATABASE: "d" }, "PGPORT", "one for each"],
  [{ DATABASE_URL: "postgres://u:secret@h/d?sslmode=prefer" }, "DATABASE_URL sslmode", "verify-full does"],
  [
    { DATABASE_URL: "postgres://u:secret@h/d?sslmode=on" },
    "DATABASE_URL sslmode",
    "disable, require or verify-full",
  ],
  [{ DATABASE_URL: "postgres://u:secret@h/d?pgbouncer=true" }, "DATABASE_URL", "PostgreSQL itself"],
  [{ DATABASE_URL: "postgres://u:secret@h/d?schema=x" }, "DATABASE_URL", 'remove the parameter "schema"'],
  [
    { DATABASE_URL: "postgres://u:secret@h/d?sslmode=require", TRIBUTARY_TLS: "disable" },
    "TRIBUTARY_TLS",
    "leave one",
  ],
  [{ DATABASE_URL: "postgres://u:secret@h/d", TRIBUTARY_TLS: "yes" }, "TRIBUTARY_TLS", "disable, require"],
  [
    { DATABASE_URL: "postgres://u:secret@h/d", TRIBUTARY_TLS_CA_FILE: "/no/such.pem" },
    "TRIBUTARY_TLS_CA_FILE",
    "ENOENT",
  ],
  [
    { DATABASE_URL: "postgres://u:secret@h/d", TRIBUTARY_TLS: "require", TRIBUTARY_TLS_CA_FILE: ca },
    "TRIBUTARY_TLS_CA_FILE",
    "needs TLS verify-full",
  ],
])("%j → %s", (environment, path, remedy) => {
  const attempt = () => connectionFromEnvironment(environment as Record<string, string>);
  expect(attempt).toThrow(ConfigurationError);
  try {
    attempt();
  } catch (error) {
    const { problems, message } = error as ConfigurationError;
    expect(problems[0]?.path).toBe(path);
    expect(problems[0]?.remedy).toContain(remedy);
    expect(message).not.toMatch(/secret|sec%ret/);
  }
});

test.each([
  [
    { DATABASE_URL: "postgres://u:p@a,b:5433,[::1]:1/d?target_session_attrs=read-write" },
    "a:5432 b:5433 ::1:1",
  ],
  [{ DATABASE_URL: "postgres://u:p@/d?host=a,b&port=1,2&target_session_attrs=primary" }, "a:1 b:2"],
  [{ DATABASE_URL: "postgres://u:p@a,b/d", PGPORT: "7" }, "a:7 b:7"],
  [{ PGHOST: "a,b", PGPORT: "1,2", PGUSER: "u", PGDATABASE: "d", PGPASSWORD: "p" }, "a:1 b:2"],
])("several servers: %o", (environment, expected) => {
  const { hosts, host, user, database, password, tls } = connectionFromEnvironment(environment);
  expect(hosts?.list.map((place) => `${place.host}:${place.port}`).join(" ")).toBe(expected);
  expect({ host, user, database, password }).toEqual({ host: "a", user: "u", database: "d", password: "p" });
  expect(tls.mode).toBe("verify-full");
});

test("one server is one, and only this machine's servers are reached in the open", () => {
  expect(connectionFromEnvironment({ DATABASE_URL: "postgres://u:p@a/d" }).hosts).toBeUndefined();
  const mode = (hosts: string) =>
    connectionFromEnvironment({ DATABASE_URL: `postgres://u:p@${hosts}/d` }).tls.mode;
  expect(mode("localhost:1,127.0.0.1:2")).toBe("disable");
  expect(mode("localhost,b")).toBe("verify-full");
});
