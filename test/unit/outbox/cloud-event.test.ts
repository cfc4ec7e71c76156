import { expect, test } from "vitest";
import { cloudEvent } from "../../../lib/source/outbox/event/cloud-event.ts";

test.each([
  ["2026-11-23T10:15:30.123456Z", true],
  ["2026-11-23T10:15:30+02:00", true],
  ["0044-03-15T12:00:00.000000Z BC", false],
  ["294276-12-31T23:59:59.000000Z", false],
  ["infinity", false],
  ["yesterday", false],
])("a CloudEvent's time is one of RFC 3339, or left out: %s", (createdAt, told) => {
  const members = {
    id: "1",
    aggregateType: "order",
    aggregateId: "17",
    type: "Paid",
    payload: "{}",
    headers: "{}",
  };
  const { time } = JSON.parse(cloudEvent({ ...members, createdAt }, "/shop"));
  expect(time).toBe(told ? createdAt : undefined);
});
