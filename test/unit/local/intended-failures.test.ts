import { expect, test } from "vitest";
import { IntendedFailures } from "../../../lib/local/shop/intended-failures.ts";

const REASON = "Error: there is no letter for this reason of cancellation";
const failed = `notifications: a handler failed on public.cancellations, attempt 1 of 3:\n  ${REASON}\n      at send`;
const dead = `notifications: dead letter: public.cancellations after 3 attempts: ${REASON}\n  once that is mended: …`;

test("the demo says of what fails on purpose that it does, and lets everything else pass", () => {
  const intended = new IntendedFailures();
  const other = `order-summary: a handler failed:\n  ${REASON}`;
  expect(intended.note(other)).toBe(other);
  expect(intended.note(failed)).toMatch(/ at send\n {2}Intended: /);
  expect(intended.note(failed)).toBeUndefined();
  expect(intended.note(dead)).toBe(
    `notifications (intended): dead letter: public.cancellations after 3 attempts: ${REASON}`,
  );
  expect(intended.note("notifications: warn: something else")).toBe("notifications: warn: something else");
});
