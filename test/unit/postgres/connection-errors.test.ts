import pg from "pg";
import { expect, test } from "vitest";
import { TributaryError } from "../../../lib/change/tributary-error.ts";
import {
  explainConnectionError,
  explainSessionError,
} from "../../../lib/source/postgres/link/connection-errors.ts";

const connection = {
  ...{
    host: "db",
    port: 5432,
    database: "sh op",
    user: 'o"k',
    password: "",
    tls: { mode: "disable" } as const,
  },
};

function refusal(code: string, message: string, routine?: string): pg.DatabaseError {
  return Object.assign(new pg.DatabaseError(message, 0, "error"), { code, routine });
}

function explained(error: Error, replication = false) {
  const typed = explainConnectionError(error, connection, { replication, providerFailure: undefined });
  expect(typed).toBeInstanceOf(TributaryError);
  return typed as TributaryError;
}

test.each([
  // The words of a German server: what refuses is told by the function.
  [
    "role",
    "zu viele Verbindungen von Rolle »ok«",
    "InitializeSessionUserId",
    false,
    'ALTER ROLE "o""k" CONN',
  ],
  [
    "database",
    "zu viele Verbindungen für Datenbank",
    "CheckMyDatabase",
    false,
    'ALTER DATABASE "sh op" CONN',
  ],
  ["server", "tut mir leid, schon zu viele Verbindungen", "InitProcess", false, "max_connections"],
  ["server, but for superusers", "die verbleibenden Slots sind", "InitPostgres", false, "max_connections"],
  ["replication sessions", "Anzahl der Standby-Verbindungen", "InitProcess", true, "max_wal_senders"],
])("too many connections: the limit is that of the %s", (_, message, routine, replication, remedy) => {
  const error = explained(refusal("53300", message, routine), replication);
  expect(error).toMatchObject({ code: "POSTGRES_NOT_READY", retry: "retry" });
  expect(error.remedy).toContain(remedy);
  const others = ["ALTER ROLE", "ALTER DATABASE", "max_connections", "max_wal_senders"];
  expect(others.filter((word) => error.remedy.includes(word))).toHaveLength(1);
});

test.each([
  ["08P01", "no more connections allowed (max_client_conn)"],
  [
    "XX000",
    "MaxClientsInSessionMode: max clients reached - in Session mode max clients are limited to pool_size",
  ],
  ["58000", "query_wait_timeout"],
])("%s %s is a pooler's limit", (code, message) => {
  expect(explained(refusal(code, message))).toMatchObject({ code: "POSTGRES_POOLER", retry: "stop" });
});

test.each([
  [Object.assign(new Error("read ECONNRESET"), { code: "ECONNRESET" }), "POSTGRES_UNREACHABLE"],
  [new Error("Connection terminated unexpectedly"), "POSTGRES_UNREACHABLE"],
  [refusal("57P01", "terminating connection due to administrator command"), "POSTGRES_NOT_READY"],
  [refusal("42501", "permission denied for table t"), "POSTGRES_PERMISSION"],
  [refusal("25006", "cannot execute CREATE PUBLICATION in a read-only transaction"), "POSTGRES_STATEMENT"],
])("an error of a session is typed: %s", (error, code) => {
  expect(explainSessionError(error)).toMatchObject({ code, cause: error });
  const suppressed = new SuppressedError(new Error("closing failed too"), error);
  expect(explainSessionError(new SuppressedError(new Error("and again"), suppressed))).toMatchObject({
    code,
  });
});

test("what is not the database's stays what it is", () => {
  for (const error of [new TypeError("x is not a function"), "text", undefined])
    expect(explainSessionError(error)).toBe(error);
});

test("the words of the server are left out where they may quote a row", () => {
  for (const [code, said] of [
    ["22P02", 'invalid input syntax for type integer: "ada@example.com"'],
    ["22008", 'date/time field value out of range: "ada@example.com"'],
    ["P0001", "no order of ada@example.com may change"],
  ] as const) {
    const { message } = explainSessionError(refusal(code, said)) as Error;
    expect(message).toContain(code);
    expect(message).not.toContain("ada");
  }
});
