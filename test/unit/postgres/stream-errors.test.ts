import pg from "pg";
import { expect, test } from "vitest";
import { explainStreamError } from "../../../lib/source/postgres/link/replication-errors.ts";

function refusal(code: string, message = ""): pg.DatabaseError {
  return Object.assign(new pg.DatabaseError(message, 0, "error"), { code });
}

test.each([
  ["42704", "opening", "SLOT_MISSING", "stop"],
  ["42704", "reading", "REPLICATION_STREAM", "stop"],
  ["55006", "opening", "SLOT_IN_USE", "restart"],
  ["57P01", "reading", "REPLICATION_LINK", "retry"],
  ["53300", "opening", "REPLICATION_LINK", "retry"],
  ["XX000", "reading", "REPLICATION_STREAM", "stop"],
] as const)("%s while %s → %s", (code, when, expected, retry) => {
  expect(explainStreamError(refusal(code), "s", when)).toMatchObject({ code: expected, retry });
});

test("a lost slot and a missing object name the command that is the way out", () => {
  const lost = explainStreamError(refusal("55000", 'cannot read from replication slot "s"'), "s", "opening");
  expect(lost).toMatchObject({ code: "SLOT_LOST" });
  expect(lost.remedy).toContain("tributary epoch new --drop-slot");
  expect(explainStreamError(refusal("42704"), "s", "opening").remedy).toMatch(/epoch new$/);
  expect(explainStreamError(refusal("42704"), "s", "reading").remedy).toContain("epoch new --drop-slot");
});
