import { describe, expect, test } from "vitest";
import { formatLsn } from "../../../lib/change/lsn.ts";
import { formatPosition } from "../../../lib/change/position.ts";
import type { ExpectedEvent } from "../../../lib/testing/checker/check.ts";
import { Confirmations } from "../../../lib/testing/checker/confirmations.ts";

const event = (n: number, partitions?: number): ExpectedEvent => ({
  topic: "t",
  position: formatPosition({ epoch: 1, commitLsn: BigInt(n), ordinal: 1 }),
  key: "k",
  ...(partitions ? { partitions } : {}),
});
const changes = [
  { slot: "a", endLsn: 15n, events: [event(10)] },
  { slot: "a", endLsn: 25n, events: [event(20, 2)] },
];

/** Kinesis answers a PutRecords of one event of the commit at `n`; `stored` false: it failed that entry. */
function answer(confirmations: Confirmations, n: number, op: string, partition: number, stored = true): void {
  const source = { connector: "postgresql", schema: "s", table: "t", commitLsn: formatLsn(BigInt(n)) };
  const events = [
    { op, before: null, after: null, source: { ...source, ordinal: 1, epoch: 1, after: null } },
  ];
  const record = JSON.stringify({ v: 1, topic: "t", partition, writer: 1, events });
  const Records = [{ PartitionKey: `t/${partition}`, Data: Buffer.from(record).toString("base64") }];
  const result = stored ? { SequenceNumber: "1", ShardId: "0" } : { ErrorCode: "InternalFailure" };
  const call = { service: "kinesis", operation: "PutRecords", body: { Records }, number: 1 };
  confirmations.onAnswer(call, 200, Buffer.from(JSON.stringify({ Records: [result] })));
}

describe("confirmations", () => {
  test("what was acknowledged first may be confirmed", () => {
    const confirmations = new Confirmations();
    answer(confirmations, 10, "c", 0);
    confirmations.seen("a", 15n);
    answer(confirmations, 20, "t", 0);
    answer(confirmations, 20, "t", 1);
    confirmations.seen("a", 25n);
    expect(confirmations.violations(changes)).toEqual([]);
  });

  test("what was confirmed before it was acknowledged is found: late, failed, never, or in one partition only", () => {
    const late = new Confirmations();
    late.seen("a", 15n);
    answer(late, 10, "c", 0);
    const failed = new Confirmations();
    answer(failed, 10, "c", 0, false);
    failed.seen("a", 15n);
    const never = new Confirmations();
    never.seen("a", 20n);
    for (const confirmations of [late, failed, never]) {
      expect(confirmations.violations(changes)).toHaveLength(1);
      expect(confirmations.violations(changes)[0]).toContain(event(10).position);
    }
    const half = new Confirmations();
    answer(half, 10, "c", 0);
    answer(half, 20, "t", 1);
    half.seen("a", 25n);
    expect(half.violations(changes)[0]).toContain(event(20).position);
  });

  test("each slot answers for its own changes alone", () => {
    const confirmations = new Confirmations();
    answer(confirmations, 20, "c", 0);
    confirmations.seen("b", 25n);
    const [first, second] = [
      changes[0] as (typeof changes)[0],
      { slot: "b", endLsn: 25n, events: [event(20)] },
    ];
    expect(confirmations.violations([first, second])).toEqual([]);
    confirmations.seen("a", 15n);
    const [found, ...others] = confirmations.violations([first, second]);
    expect(others).toEqual([]);
    expect(found).toMatch(/^the slot a had confirmed .* t /);
    expect(found).toContain(event(10).position);
  });
});
