import { PassThrough } from "node:stream";
import { expect, test } from "vitest";
import { type ChangeStream, CONTROL_EVENTS, type SourceMessage } from "../../../lib/change/change-stream.ts";
import { TailPrinter } from "../../../lib/cli/tail-printer.ts";

const change = (position: string, table = "public.orders") =>
  ({ kind: "change", position, table, json: `{"at":"${position}","source":{"ts":1` }) as SourceMessage;
const commit = (endPlace: bigint): SourceMessage => ({ kind: "commit", endPlace, commitTimeMs: 0 });

/** A source that gives these batches and ends. */
function source(...batches: SourceMessage[][]) {
  const acknowledged: bigint[] = [];
  const stream: ChangeStream = {
    changes: (async function* () {
      yield* batches;
    })(),
    acknowledge: (lsn) => void acknowledged.push(lsn),
    close: async () => {},
  };
  return { stream, acknowledged };
}

function printer(limit?: number) {
  const output = new PassThrough();
  const lines: string[] = [];
  output.setEncoding("utf8").on("data", (text: string) => void lines.push(...text.trim().split("\n")));
  const lineOf = (json: string) => (JSON.parse(json) as { at: string }).at;
  return { lines, printer: new TailPrinter(output, lineOf, limit, new AbortController().signal) };
}

test("a source that is opened anew inside a transaction prints none of it twice, and acknowledges it whole", async () => {
  const { lines, printer: own } = printer();
  const first = source([change("1"), commit(10n), change("2")], [change("3")]);
  await own.print(first.stream);
  const second = source([change("2"), change("3"), change("4"), commit(20n)]);
  await own.print(second.stream);
  expect(lines).toEqual(["1", "2", "3", "4"]);
  expect([first.acknowledged, second.acknowledged]).toEqual([[10n], [20n]]);
});

test("control events are neither printed nor counted", async () => {
  const { lines, printer: own } = printer(1);
  await own.print(source([change("1", CONTROL_EVENTS), change("2"), commit(10n), change("3")]).stream);
  expect([lines, own.isDone]).toEqual([["2"], true]);
});
