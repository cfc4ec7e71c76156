import { hostname } from "node:os";
import { describe, expect, it } from "vitest";
import type {
  CaptureTaskStatus,
  ConsumerSummary,
  PipelineStatus,
} from "../../../lib/admin/pipeline-status.ts";
import { commandIn, mendingIn } from "../../../lib/admin/remedy-command.ts";
import type { PipelineResources } from "../../../lib/admin/resources.ts";

import { retentionLeft } from "../../../lib/admin/retention-left.ts";
import { problemsOf } from "../../../lib/admin/status-problems.ts";

import { statusLines } from "../../../lib/cli/status-lines.ts";

const figures = {
  ...{ changes: 5, connected: true, lagMs: 0, lagBytes: 0, bufferedBytes: 0, oldestUnacknowledgedMs: 0 },
  ...{ retries: 0, throttles: 0, walStatus: "reserved", walHeldBytes: 1024, safeWalBytes: 1024 ** 3 },
};
const task = (over: Partial<CaptureTaskStatus> = {}): CaptureTaskStatus => ({
  ...{ slot: 1, state: "RUNNING", since: "2026-11-30T10:00:00.000Z", reportedAt: "2026-11-30T10:05:00.000Z" },
  ...{ reportAgeMs: 4_000, waiting: undefined, paused: undefined, failure: undefined, tasks: 0 },
  ...{ newcomer: undefined, lease: { owner: "a", generation: 3, beatAgeMs: 2_000 } },
  ...{ source: { slot: "shop", confirmed: "0/1B143C8" }, figures, walBudgetLeftPercent: 98.6 },
  ...over,
});
const orders = (over: Partial<ConsumerSummary> = {}): ConsumerSummary => ({
  ...{ name: "orders", topics: ["*"], partitions: 1, checkpoint: undefined, lag: { state: "caught up" } },
  ...{ paused: undefined, retention: undefined, held: 0, gaps: 0, unhealed: 0, deadLetterKeys: 0, parked: 0 },
  ...{ deadLetterMessages: 0, attention: [] },
  ...over,
});
type Facts = Omit<PipelineStatus, "problems" | "healthy">;
const status = (over: Partial<Facts> = {}): Facts => ({
  ...{ pipeline: "shop", place: "here", at: "2026-11-30T10:05:04.000Z", unknown: [] },
  ...{ captures: [task()], tables: [], capture: undefined, captureDeadLetters: 0, consumers: [orders()] },
  ...over,
});
const resources: PipelineResources = {
  ...{ pipeline: "shop", place: "stack Shop in eu-west-1", stack: "Shop", stateTable: "t", stream: "s" },
  ...{ claimStore: undefined, captureDeadLetters: undefined },
  captures: [{ slot: 1, cluster: "C", service: "S" }],
  consumers: {},
};
const problems = (over: Partial<Facts>) => problemsOf(status(over), resources);
const failure = { code: "SLOT_LOST", message: "m", remedy: "r", retry: "stop", at: "2026" } as const;

it("the WAL budget is raised by a statement that the server takes", () => {
  const low = { ...figures, maxSlotWalKeepBytes: 10 * 1024 ** 3 };
  const [found] = problems({ captures: [task({ figures: low, walBudgetLeftPercent: 5 })] });
  expect(found?.command).toBe(
    "ALTER SYSTEM SET max_slot_wal_keep_size = '20480MB'; SELECT pg_reload_conf();",
  );
});

describe("the problems of a pipeline", () => {
  it("of a preflight each stand with their own code, remedy and statement", () => {
    const found = [
      { code: "SELECT", message: "may not read", remedy: "GRANT SELECT ON t TO r;" },
      { code: "TABLE_KIND", message: "a view", remedy: "Leave it out." },
    ];
    const whole = { ...failure, code: "PREFLIGHT", problems: found };
    expect(problems({ captures: [task({ state: "FAILED", failure: whole })] })).toMatchObject([
      { code: "SELECT", message: "ended: may not read", command: "GRANT SELECT ON t TO r;" },
      { code: "TABLE_KIND", remedy: "Leave it out.", command: "tributary explain TABLE_KIND" },
    ]);
  });

  it("of a second task say where it runs, and how to end it if that is here", () => {
    const second = (host: string) =>
      problems({
        captures: [
          task({ newcomer: { state: "WAITING", code: undefined, message: "m", process: { host, pid: 7 } } }),
        ],
      })[0];
    expect(second(hostname())).toMatchObject({
      command: "kill 7",
      remedy: expect.stringMatching(/process 7\.$/),
    });
    expect(second("another")).toMatchObject({
      command: undefined,
      remedy: expect.stringMatching(/process 7 on another\.$/),
    });
  });

  it("are none where all runs", () => {
    expect(problems({})).toEqual([]);
  });

  it("each name what to type", () => {
    const restart = "aws ecs update-service --cluster C --service S --desired-count 1 --force-new-deployment";
    const hold = { since: "2026", cause: "Error", bytes: 1 };
    const at = {
      topic: "shop.t",
      partition: 0,
      checkpoint: undefined,
      writer: 1,
      hold: undefined,
      gap: undefined,
    };
    const rest = { unhealed: [], deadLetters: 0, parked: 0 };
    const gap = { topic: "shop.t", partition: 0, cause: "gap" } as never;
    const object = { topic: "shop.t", partition: 0, cause: "object" } as never;
    const by = { by: "ada", since: "2026", reason: undefined };
    for (const [over, command] of [
      [{ captures: [task({ state: "SILENT" })] }, restart],
      [{ captures: [task({ state: "STOPPED" })] }, restart],
      [{ captures: [task({ state: "NEVER STARTED" })] }, restart],
      [{ captures: [task({ state: "UNREPORTED" })] }, restart],
      [{ captures: [task({ state: "STARTING" })] }, "tributary status --watch"],
      [{ captures: [task({ state: "UNKNOWN" })] }, "tributary doctor"],
      [{ captures: [task({ state: "FAILED", failure })] }, "tributary explain SLOT_LOST"],
      [{ captures: [task({ state: "PAUSED", paused: by })] }, "tributary capture resume"],
      [{ captures: [task({ paused: by })] }, "tributary capture resume"],
      [
        {
          captures: [task({ state: "WAITING", waiting: { for: "slot", message: "is read by process 812" } })],
        },
        "SELECT pg_terminate_backend(812);",
      ],
      [
        { captures: [task({ state: "WAITING", waiting: { for: "database", message: "m" } })] },
        "tributary doctor",
      ],
      [{ consumers: [orders({ paused: by })] }, "tributary consumer resume --consumer orders"],
      [
        { consumers: [orders({ held: 1, attention: [{ ...at, ...rest, hold }] })] },
        "tributary dlq redrive --consumer orders",
      ],
      [
        { consumers: [orders({ gaps: 1, attention: [{ ...at, ...rest, gap }] })] },
        "tributary consumer accept-gap --consumer orders --topic shop.t",
      ],
      // A partition is held before what is missing: to redrive it mends nothing there, and to accept a lost object loses what could be restored.
      [
        { consumers: [orders({ held: 1, gaps: 1, attention: [{ ...at, ...rest, hold, gap }] })] },
        "tributary consumer accept-gap --consumer orders --topic shop.t",
      ],
      [
        { consumers: [orders({ held: 1, gaps: 1, attention: [{ ...at, ...rest, hold, gap: object }] })] },
        "tributary dlq redrive --consumer orders",
      ],
      [
        { unknown: [{ part: "dead-letter queue of orders", reason: "r", needed: true, isMissing: true }] },
        "tributary doctor",
      ],
      [{ consumers: [orders({ deadLetterKeys: 1, parked: 4 })] }, "tributary dlq redrive --consumer orders"],
      [{ consumers: [orders({ unhealed: 1 })] }, "tributary consumer status --consumer orders"],
      [
        { consumers: [orders({ lag: { state: "behind", forMs: 600_000, atLeast: true, topic: "shop.t" } })] },
        "tributary consumer status --consumer orders",
      ],
    ] as const) {
      const found = problems(over as Partial<Facts>);
      expect(found.map(({ severity, command: typed }) => [severity, typed])).toEqual([
        ["unhealthy", command],
      ]);
    }
  });

  it("tell of WAL that runs out, by the alarms' thresholds, and of a capture that is late", () => {
    const of = (more: object, left = 98) =>
      problems({ captures: [task({ figures: { ...figures, ...more }, walBudgetLeftPercent: left })] }).map(
        ({ message }) => message,
      );
    expect(of({}, 29)).toEqual([expect.stringContaining("29% of the WAL budget")]);
    expect(of({}, 30)).toEqual([]);
    expect(of({ walStatus: "unreserved" }, 0)).toEqual([expect.stringContaining("unreserved")]);
    expect(of({ walLossSeconds: 7_199 })).toEqual([expect.stringContaining("in 120 min")]);
    expect(of({ walLossSeconds: 7_201 })).toEqual([]);
    expect(of({ lagMs: 600_000 })).toEqual([expect.stringContaining("late: 600 s")]);
    expect(of({ lagBytes: 1024 ** 3 })).toEqual([expect.stringContaining("late")]);
    expect(of({ lagMs: 599_999, lagBytes: 1024 ** 3 - 1 })).toEqual([]);
  });

  it("tell of a pause what is left before changes are lost, and more near the end, by the alarms' thresholds", () => {
    const hour = 3_600_000;
    const paused = { by: "ada", since: "2026", reason: "drill" };
    const consumer = (ageMs: number) =>
      problems({ consumers: [orders({ paused, retention: retentionLeft(0, 24, ageMs) })] });
    const resume = "tributary consumer resume --consumer orders";
    expect(consumer(6 * hour)).toMatchObject([
      {
        severity: "unhealthy",
        message: 'is paused by ada since 2026 ("drill"); 18 h of the stream\'s retention of 24 h are left',
        remedy: expect.stringContaining(
          "about 6 h old, and the stream keeps that until 1970-01-02T00:00:00.000Z",
        ),
        command: resume,
      },
    ]);
    expect(consumer(12 * hour - 1)).toHaveLength(1);
    expect(consumer(12 * hour)).toMatchObject([
      {},
      { severity: "unhealthy", message: expect.stringContaining("used up 50% of the"), command: resume },
    ]);
    expect(consumer(24 * hour - 60_000)[0]?.message).toContain("; 1 min of the stream's retention");
    expect(consumer(24 * hour - 1)[1]?.message).toContain("used up 99%");
    expect(consumer(24 * hour)[1]).toMatchObject({
      message: expect.stringContaining("may be gone"),
      remedy: expect.stringContaining("accept the gap"),
      command: resume,
    });

    const capture = (more: object, left: number | undefined) =>
      problems({
        captures: [
          task({ state: "PAUSED", paused, figures: { ...figures, ...more }, walBudgetLeftPercent: left }),
        ],
      });
    expect(capture({}, 30)).toMatchObject([
      { message: 'is paused by ada since 2026 ("drill"); 30% of the WAL budget is left' },
    ]);
    expect(capture({}, 29.9)).toMatchObject([
      { message: expect.stringContaining("; 29% of the WAL budget is left") },
      {
        severity: "unhealthy",
        message: expect.stringContaining("beyond it the slot is lost"),
        command: "tributary capture resume",
      },
    ]);
    expect(capture({ walLossSeconds: 7_199 }, 90)).toMatchObject([
      {},
      { message: expect.stringContaining("in 120 min"), command: "tributary capture resume" },
    ]);
    expect(capture({ safeWalBytes: undefined }, 100)).toMatchObject([
      { message: expect.stringContaining("WITHOUT A BOUND") },
    ]);
    // Triggers, polling, an outbox: no log is kept for it.
    const tables = capture(
      { walHeldBytes: undefined, safeWalBytes: undefined, walStatus: undefined },
      undefined,
    );
    expect(tables).toHaveLength(1);
    expect(JSON.stringify(tables)).not.toContain("WAL");
  });

  it("are no news of a consumer that is late for a reason that is told already, nor of a moment's lag", () => {
    const behind = (forMs: number) => ({ state: "behind", forMs, atLeast: false, topic: "t" }) as const;
    expect(problems({ consumers: [orders({ lag: behind(599_999) })] })).toEqual([]);
    const paused = { by: "ada", since: "2026", reason: undefined };
    expect(problems({ consumers: [orders({ lag: behind(9e9), paused })] })).toHaveLength(1);
  });

  it("put what is only worth knowing behind what is not healthy", () => {
    const backfill = { status: "refused", run: 1, reason: "no key", rows: 0 } as never;
    const found = problems({
      captures: [
        task({ newcomer: { state: "WAITING", code: undefined, message: "waits" } }),
        task({ slot: 2, state: "SILENT" }),
      ],
      tables: [{ table: "public.t", topic: "shop.public.t", slot: 1, backfill }],
    });
    expect(found.map(({ severity, part }) => [severity, part])).toEqual([
      ["unhealthy", "capture slot 2"],
      ["note", "capture slot 1"],
      ["note", "table public.t"],
    ]);
  });
});

it("a command is found in a remedy as it is typed", () => {
  for (const [text, command] of [
    ["begin a new epoch: tributary epoch new --drop-slot (see docs)", "tributary epoch new --drop-slot"],
    [
      "then tributary capture release --topic shop.public.orders.",
      "tributary capture release --topic shop.public.orders",
    ],
    ["Wait for its end (tributary backfill status), or cancel it", "tributary backfill status"],
    ["tributary redrive and wait", "tributary redrive"],
    ["the pipeline tributary wants", undefined],
  ] as const)
    expect(commandIn(text)).toBe(command);
});

it("what mends is the first that a remedy names: a command, or a statement of SQL with the one that makes it count", () => {
  for (const [text, mending] of [
    ['GRANT SELECT ON "public"."orders" TO "cdc";', 'GRANT SELECT ON "public"."orders" TO "cdc";'],
    [
      "ALTER SYSTEM SET wal_level = 'logical'; then restart the server.",
      "ALTER SYSTEM SET wal_level = 'logical';",
    ],
    [
      "Less than the disk: ALTER SYSTEM SET a = '1GB'; SELECT pg_reload_conf();",
      "ALTER SYSTEM SET a = '1GB'; SELECT pg_reload_conf();",
    ],
    ["tributary epoch new --drop-slot, then GRANT SELECT ON t TO r;", "tributary epoch new --drop-slot"],
    ["GRANT SELECT ON t TO r; then tributary plan", "GRANT SELECT ON t TO r;"],
    ["Change a publication with ALTER PUBLICATION. Then wait; nothing is lost", undefined],
  ] as const)
    expect(mendingIn(text)).toBe(mending);
});

it("a status in lines: tables of equal widths, units, and the command on a line of its own", () => {
  const capture = task({
    figures: { ...figures, lagMs: 3_000, lagBytes: 1536, maxSlotWalKeepBytes: 10 * 1024 ** 3 },
  });
  const backfill = {
    status: "running",
    run: 2,
    reason: undefined,
    rows: 12_000,
    percent: 40,
    rowsPerSecond: 10,
  };
  const facts = status({
    captures: [capture],
    tables: [
      { table: "public.orders", topic: "shop.public.orders", slot: 1, backfill: { status: "none" } },
      {
        table: "public.t",
        topic: "shop.public.t",
        slot: 1,
        backfill: { ...backfill, remainingSeconds: 90 } as never,
      },
    ],
    consumers: [
      orders({
        deadLetterKeys: 1,
        parked: 2,
        lag: { state: "behind", forMs: 130_000, atLeast: true, topic: "t" },
      }),
    ],
    unknown: [{ part: "dead-letter queue of orders", reason: "no answer within 10 s", needed: false }],
  });
  const lines = statusLines(
    { ...facts, healthy: false, problems: problemsOf(facts, resources) },
    (_, text) => text,
  );
  expect(lines).toEqual([
    "shop  not healthy  here, 2026-11-30T10:05:04.000Z",
    "",
    "capture  RUNNING for 5 min, reported 4 s ago, 5 changes since its start",
    "  lag    3 s, 1.5 KB",
    "  slot   shop at 0/1B143C8, active, reserved",
    "  WAL    1 KB held, 1 GB (98%) of 10 GB left",
    "  lease  a, generation 3, renewed 2 s ago",
    "",
    "table          topic               backfill",
    "public.orders  shop.public.orders  none",
    "public.t       shop.public.t       running, 40%, 12,000 rows, 90 s left",
    "",
    "consumer  checkpoint   lag         held  parked  dead letters  gaps  unhealed  queue",
    "orders    nothing yet  over 2 min     0       2             1     0         0      0",
    "",
    "could not be read:",
    "  dead-letter queue of orders: no answer within 10 s",
    "",
    "! consumer orders",
    "    1 key has open dead letters, and 2 changes are parked",
    "    What to do: Correct what made them fail, then redrive them.",
    "    tributary dlq redrive --consumer orders",
  ]);
  const narrow = statusLines(
    { ...facts, healthy: false, problems: problemsOf(facts, resources) },
    (_, text) => text,
    40,
  );
  expect(narrow.slice(-5)).toEqual([
    "    1 key has open dead letters, and 2",
    "    changes are parked",
    "    What to do: Correct what made them",
    "    fail, then redrive them.",
    "    tributary dlq redrive --consumer orders",
  ]);
});
