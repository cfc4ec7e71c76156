import { PassThrough } from "node:stream";
import { describe, expect, it } from "vitest";
import { openDisplay, readable } from "../../../lib/local/display.ts";
import type { LiveFigures } from "../../../lib/local/live-view.ts";

const figures: LiveFigures = {
  pipeline: "shop",
  upMs: 0,
  source: "here",
  workload: undefined,
  capture: { rates: [], rate: 0, changes: 0, lagBytes: 0, lagMs: 0, restarts: 0 },
  backfills: [],
  consumers: [],
  tables: [],
  hints: [],
  log: [],
};

function output(terminal: boolean, rows = 24) {
  const stream = new PassThrough({ encoding: "utf8" });
  const facts = terminal ? { isTTY: true, columns: 80, rows } : {};
  return {
    stream: Object.assign(stream, facts) as unknown as NodeJS.WriteStream,
    read: () => stream.read() ?? "",
  };
}

describe("a log line", () => {
  it("reads as a sentence, with where it happened at the end", () => {
    const line =
      'notifications: {"level":"warn","message":"a handler failed","topic":"t","error":"TypeError"}';
    expect(readable(line)).toBe("notifications: warn: a handler failed error=TypeError topic=t");
  });

  it("has what to do below it, and the command that says more, as it is typed here", () => {
    const line = JSON.stringify({
      ...{ level: "WARN", message: "held", code: "HELD_FULL", topic: "t" },
      ...{ remedy: "Correct it,\nthen: tributary redrive --consumer a", more: "tributary explain HELD_FULL" },
    });
    expect(readable(`a: ${line}`).split("\n")).toEqual([
      "a: warn: held code=HELD_FULL topic=t",
      "  What to do: Correct it,",
      "              then: npm run -s tributary -- redrive --consumer a",
      "  More: npm run -s tributary -- explain HELD_FULL",
    ]);
  });

  it("is one line, whatever it quotes", () => {
    const line = JSON.stringify({ level: "warn", message: "stopped", errorMessage: "a\n\tb" });
    expect(readable(`c: ${line}`)).toBe("c: warn: stopped errorMessage=a b");
  });

  it.each(["plain", "half {json", '{"no":"message"}', "x: {not json}"])("stays as it is: %s", (line) => {
    expect(readable(line)).toBe(line);
  });
});

describe("the display", () => {
  it("prints plain lines where there is no terminal", () => {
    const { stream, read } = output(false);
    const display = openDisplay(stream);
    display.say("starting");
    display.log("a line");
    display.show(() => figures);
    display.close();
    expect(read()).toMatch(/^starting\na line\n00:00:00 \| capture 0\/s.*\n$/);
  });

  it("keeps a text of several lines above the figures in a terminal, which are drawn again at once", () => {
    const { stream, read } = output(true);
    const display = openDisplay(stream);
    display.show(() => figures);
    const height = String(read()).split("\n").length - 1;
    display.log('orders: a handler failed:\n  RangeError: {"message":"no"}');
    expect(read()).toMatch(
      new RegExp(
        `^\u001b\\[${height}A\u001b\\[Jorders: a handler failed:\n  RangeError: {"message":"no"}\n.*tributary`,
      ),
    );
    expect(display.recent).toEqual([]);
    display.close();
  });

  it("redraws in a terminal, goes back over what it drew, and never scrolls", () => {
    const { stream, read } = output(true, 6);
    const display = openDisplay(stream);
    display.show(() => ({ ...figures, hints: Array.from({ length: 30 }, (_, i) => `hint ${i}`) }));
    const first = String(read());
    const height = first.split("\n").length - 1;
    expect(height).toBeLessThan(6);
    display.log("kept for the frame");
    display.close();
    const second = String(read());
    expect(second.startsWith(`\u001b[${height}A\u001b[J`)).toBe(true);
    expect(display.recent).toEqual(["kept for the frame"]);
    display.say("stopping");
    expect(read()).toBe("stopping\n");
  });
});
