import type { Mutation } from "./mutation.ts";

/** Breakages of the state table, the capture task and everything else. */
export const STATE: readonly Mutation[] = [
  {
    name: "tear down what somebody uses",
    file: "lib/admin/teardown.ts",
    from: "  if (inUse) throw inUse;\n",
    to: "",
    tests: ["test/unit/source/toy-kind.test.ts"],
  },
  {
    name: "let the partitions of an outbox's topics change",
    file: "lib/state/settings.ts",
    from: "[...tables, ...beside]",
    to: "[...tables]",
    tests: ["test/unit/settings.test.ts"],
  },
  {
    name: "take a source of lanes for one stream",
    file: "lib/source/outbox/kind.ts",
    from: 'by: "lanes",',
    to: 'by: "stream",',
    tests: ["test/unit/source/kinds.test.ts"],
  },
  {
    name: "let an older capture task remove what is to be read again",
    file: "lib/state/leased-table.ts",
    from: "generation <= :generation",
    to: "generation <> :generation",
    tests: ["test/aws/state/rereads.test.ts"],
  },
  {
    name: "forget what was held behind a release that stopped halfway, and the task that died",
    file: "lib/capture/stored-tail.ts",
    from: "    by === undefined ? drained === START_OF_HISTORY : by === generation;\n",
    to: "    drained === START_OF_HISTORY && (by === undefined || by === generation);\n",
    tests: ["test/aws/capture-tail.test.ts"],
  },
  {
    name: "call a sink equal that holds a row twice",
    file: "lib/verify/verify.ts",
    from: "if (ofSink && rows.has(keyText))",
    to: "if (!ofSink && rows.has(keyText))",
    tests: ["test/unit/verify/compare-table.test.ts"],
  },
  {
    name: "take a number in JSON for the text of its digits when a table is verified",
    file: "lib/verify/comparable.ts",
    from: "    return wideNumber ? wide(BigInt(inner)) : inner;",
    to: '    return wideNumber ? inner : typeof inner === "number" ? String(inner) : inner;',
    tests: ["test/unit/verify/comparable.test.ts"],
  },
  {
    name: "take in all rows of a page that verify reads, however large",
    file: "lib/verify/bounded-rows.ts",
    from: "    socket?.pause();\n",
    to: "",
    tests: ["test/postgres/verify-large-rows.test.ts"],
  },
  {
    name: "count generations by slot",
    file: "lib/state/capture-lease.ts",
    from: "Math.max(number(first?.newest) + 1, number(first?.generation) + 1, atLeast)",
    to: "atLeast",
    tests: ["test/aws/state"],
  },
  {
    name: "the SDK's retries on",
    file: "lib/aws/clients.ts",
    from: "const once = { maxAttempts: 1 } as const;",
    to: "const once = { maxAttempts: 3 } as const;",
    tests: ["test/aws/clients.test.ts"],
  },
  {
    name: "let a topic's old slot forget that a table is to be read again",
    file: "lib/capture/slot-task.ts",
    from: "if (!hasLeft(aside.topic)) await record.remove(aside);",
    to: "await record.remove(aside);",
    tests: ["test/unit/slots/own-asides.test.ts"],
  },
  {
    name: "a superseded task removes the settings that its successor wrote",
    file: "lib/state/capture-parts.ts",
    from: '"#generation <= :generation"',
    to: '"#generation >= :generation"',
    tests: ["test/aws/state"],
  },
];
