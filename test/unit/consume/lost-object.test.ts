import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from "vitest";
import { acceptGap, planAcceptance } from "../../../lib/admin/accept-gap.ts";
import { consumerStatus } from "../../../lib/admin/consumer-status.ts";
import { claimRecord } from "../../../lib/change/record.ts";
import { ClaimMissingError } from "../../../lib/change/record-errors.ts";
import type { Consumer } from "../../../lib/consume/api/consumer.ts";
import { ALL_OPERATIONS } from "../../../lib/consume/api/operation.ts";
import { memoryConsumer, timeLeft } from "./memory-consumer.ts";
import { at, chain, invocationOf, kinesisRecord, packed, TOPIC } from "./records.ts";

let clock = 0;
beforeEach(() => {
  clock = Date.parse("2026-01-01T00:00:00Z");
  vi.spyOn(Date, "now").mockImplementation(() => clock);
});
afterEach(() => void vi.restoreAllMocks());

const { signal } = new AbortController();

describe.each(["park", "stop"] as const)("a change whose object has expired, under %s", (poison) => {
  it("holds its partition, says what to do, and lets it go on once its loss is accepted", async () => {
    const directory = await mkdtemp(join(tmpdir(), "tributary-lost-"));
    onTestFinished(() => rm(directory, { recursive: true }));
    const bucket = pathToFileURL(directory).href;
    const effects: string[] = [];
    const build = (c: Consumer) => c.on("*", ALL_OPERATIONS, ({ id }) => void effects.push(id));
    const { handler, lines, plain } = await memoryConsumer(build, { poison, claims: bucket, attempts: 2 });
    const claim = { bucket, key: "p/gone", bytes: 300_000, sha256: "0".repeat(64) };
    const header = { topic: TOPIC, partition: 0, writer: 1 };
    const pointer = kinesisRecord(claimRecord(header, claim, at(2), at(1)), `${TOPIC}/0`);
    const before = await handler(invocationOf(packed(chain(1, 1)), pointer, packed(chain(3, 3))), timeLeft());
    expect(before).toEqual({ batchItemFailures: [] });
    expect(effects).toEqual([at(1)]);

    const place = { dynamodb: plain, table: "t", pipeline: "p", consumer: "c" };
    expect(await consumerStatus(place, signal)).toMatchObject([
      { hold: { cause: "ClaimMissingError" }, gap: { cause: "object", behind: at(1), upTo: at(2) } },
    ]);
    expect(lines.at(-1)).toMatchObject({
      message: "a partition is held, its shard goes on",
      code: "CLAIM_MISSING",
    });
    expect(new ClaimMissingError(claim).remedy).toContain("tributary consumer accept-gap");

    const plan = await planAcceptance(place, { topic: TOPIC }, [], signal);
    expect(await acceptGap(place, plan, "me", signal)).toMatchObject([{ outcome: "passed" }]);
    expect(await handler({ tributary: "redrive" }, timeLeft())).toMatchObject({ done: 1 });
    expect(effects).toEqual([at(1), at(3)]);
    expect(await consumerStatus(place, signal)).toMatchObject([{ checkpoint: at(3), hold: undefined }]);
  });
});
