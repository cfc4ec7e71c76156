import { describe, expect, test } from "vitest";
import { explain } from "../../../lib/change/error-text.ts";
import { ConfigurationError, defineError } from "../../../lib/change/tributary-error.ts";
import { PreflightError } from "../../../lib/source/postgres/postgres-errors.ts";

class PortError extends defineError("PORT", "stop") {}
const place = { program: "npx tributary-cdc" };

describe("an error is printed as what happened, what to do, and where there is more", () => {
  test("one of ours", () => {
    const error = new PortError({
      message: "port 80 is taken",
      remedy: "Free 80 (tributary teardown),\nor take 81.",
    });
    expect(explain(error, place)).toBe(
      [
        "port 80 is taken",
        "What to do: Free 80 (npx tributary-cdc teardown),",
        "            or take 81.",
        "More: npx tributary-cdc explain PORT",
      ].join("\n"),
    );
  });

  test("several problems, each with its own way out, and one line for all their codes", () => {
    const error = new PreflightError([
      { code: "WAL_LEVEL", message: "wal_level is replica", remedy: "ALTER SYSTEM …;" },
      { code: "SELECT", message: "may not read a", remedy: "GRANT SELECT ON a TO r;" },
      { code: "SELECT", message: "may not read b", remedy: "GRANT SELECT ON b TO r;" },
    ]);
    expect(explain(error, place)).toBe(
      [
        "PostgreSQL is not ready for capture:",
        "  WAL_LEVEL: wal_level is replica",
        "    What to do: ALTER SYSTEM …;",
        "  SELECT: may not read a",
        "    What to do: GRANT SELECT ON a TO r;",
        "  SELECT: may not read b",
        "    What to do: GRANT SELECT ON b TO r;",
        "More: npx tributary-cdc explain WAL_LEVEL SELECT",
      ].join("\n"),
    );
    expect(error.remedy.split("\n")).toEqual([
      "WAL_LEVEL: ALTER SYSTEM …;",
      "SELECT: GRANT SELECT ON a TO r;",
      "SELECT: GRANT SELECT ON b TO r;",
    ]);
  });

  test("fields of a command line or definition, each with what to write", () => {
    const error = new ConfigurationError("The definition", [
      { path: "name", value: 1, remedy: "write a text" },
      { path: "source", value: undefined, remedy: "say where from" },
    ]);
    expect(explain(error, place)).toBe(
      [
        "The definition is not valid:",
        "  name: write a text (got 1)",
        "  source: say where from (got nothing)",
        "What to do: Correct the fields named above and start again.",
        "More: npx tributary-cdc explain CONFIGURATION",
      ].join("\n"),
    );
  });

  test("what is no error of ours with its stack", () => {
    const error = new TypeError("x is not a function");
    expect(explain(error, place)).toBe(error.stack);
    expect(explain("thrown", place)).toBe("thrown");
  });
});
