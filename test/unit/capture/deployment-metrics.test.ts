import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { tellDeploying } from "../../../lib/capture/deployment-metrics.ts";
import { emf } from "../observe/emf-line.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

test.each([
  ["slots", "SlotActive", 2, { slot: "2" }],
  ["tables", "SourceConnected", 1, {}],
] as const)(
  "a task of %s that waits for the first deploy tells that it lives, until it is ended",
  (metrics, name, slot, more) => {
    const lines: string[] = [];
    const write = (line: string) => void lines.push(line);
    const end = tellDeploying({ stage: "Test", pipeline: "shop", slot, seconds: 20, write, metrics });
    vi.advanceTimersByTime(59_000);
    expect(lines.map(emf).map(({ values }) => values)).toEqual([1, 2, 3].map(() => ({ [name]: 1 })));
    expect(emf(lines[0] ?? "").dimensions).toEqual({ stage: "Test", pipeline: "shop", ...more });
    end();
    vi.advanceTimersByTime(60_000);
    expect(lines).toHaveLength(3);
  },
);
