import { expect, test } from "vitest";
import type { PlannedChange } from "../../../lib/admin/plan/pipeline-plan.ts";
import { renamedConsumers } from "../../../lib/admin/plan/renamed-consumer.ts";

const consumer = (action: "add" | "remove", name: string): PlannedChange => ({
  what: "consumer",
  action,
  name,
});

test("a consumer that goes while another comes may be a new name, and its plan says what that loses", () => {
  const [note = ""] = renamedConsumers([consumer("add", "letters"), consumer("remove", "notifications")]);
  expect(note).toMatch(/^notifications goes while letters comes\./);
  for (const command of [
    "backfill start --table <table> --consumer letters",
    "consumer status --consumer notifications",
  ])
    expect(note).toContain(`tributary ${command}`);
});

test("one that only comes, or only goes, is no new name", () => {
  expect(renamedConsumers([consumer("add", "letters")])).toEqual([]);
  expect(renamedConsumers([consumer("remove", "notifications")])).toEqual([]);
  expect(renamedConsumers([])).toEqual([]);
});
