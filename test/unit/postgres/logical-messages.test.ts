import { expect, test } from "vitest";
import type { SourceMessage } from "../../../lib/change/change-stream.ts";
import { formatPosition } from "../../../lib/change/position.ts";
import { definePipeline, type LogPipeline, postgres } from "../../../lib/definition/pipeline.ts";
import { LogicalMessages } from "../../../lib/source/postgres/decode/logical-messages.ts";
import { HEARTBEAT } from "../../../lib/source/postgres/slot/heartbeat.ts";

const pipeline = definePipeline({
  name: "shop",
  source: postgres({ tables: ["public.*"], acceptUnboundedWal: true, messages: ["app"] }),
}) as LogPipeline;

test("a heartbeat leaves no place that a server must still have, and hides no message of a server that lost it", () => {
  const own: bigint[] = [];
  const messages = new LogicalMessages({
    ...{ pipeline, database: "shop", epoch: 1, now: () => 0, encoding: "utf-8", resumeAfter: "" },
    outbox: { takes: () => false } as never,
    onMessage: ({ lsn }) => {
      own.push(lsn);
      return false;
    },
  });
  const out: SourceMessage[] = [];
  const message = (prefix: string, lsn: bigint) => {
    const content = Buffer.from("x");
    messages.take({ prefix, content, lsn, transactional: false }, undefined, 1, out);
  };
  message(HEARTBEAT, 200n);
  expect(own).toEqual([200n]);
  expect(messages.seen).toBe("");
  message("app", 150n);
  expect(out).toHaveLength(1);
  expect(messages.seen).toBe(formatPosition({ epoch: 1, commitLsn: 149n, ordinal: 1 }));
});
