import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";
import { describe, expect, it, onTestFinished } from "vitest";
import type { ClaimCheck } from "../../../lib/change/claim-check.ts";
import { printJson } from "../../../lib/change/json-print.ts";
import { COMPRESSED_TAIL, compressedHead, unpackedEventTail } from "../../../lib/change/record.ts";
import type { Consumer } from "../../../lib/consume/api/consumer.ts";
import { ALL_OPERATIONS, Operation } from "../../../lib/consume/api/operation.ts";
import { memoryConsumer, timeLeft } from "./memory-consumer.ts";
import { at, eventJson, invocationOf, kinesisRecord, packed, recordJson, TOPIC } from "./records.ts";

/*
 * Whatever document PostgreSQL holds, its change is read, and if it fails, it fails alone and is redriven as it was.
 */

const LEVELS = 10_000;
const nested = (inner: string, levels = LEVELS) => `${"[".repeat(levels)}${inner}${"]".repeat(levels)}`;
const objects = (inner: string) => `${'{"a":'.repeat(LEVELS)}${inner}${"}".repeat(LEVELS)}`;

const documents: readonly [what: string, json: string][] = [
  ["arrays of 10,000 levels", nested("1")],
  ["arrays of 10,000 levels around a large number", nested("12345678901234567")],
  ["objects of 10,000 levels around a large number", objects("[12345678901234567,1e400]")],
  ["a number of 100,000 digits", `[0.${"0".repeat(50_000)}1${"0".repeat(50_000)}1]`],
  ["a member that stands twice", '{"a":1.10,"a":12345678901234567.0}'],
  ["blanks, as the type json keeps them", '{ "a" :\t[ 1.0 ,\r\n{ } , [ ] ] ,"b": "x" }'],
  ["noncharacters, as text and escaped", '"\uFFFE\uFFFF\u{1FFFF} \\uffff"'],
  ["half of a surrogate pair, which json takes escaped", '["\\ud800","\\udc00\\u0000"]'],
  ["quotes, backslashes and brackets in strings", '["\\\\","\\"]}","]},{\\\\\\"", 12345678901234567]'],
  ["__proto__", '{"__proto__":{"x":12345678901234567},"constructor":1}'],
];

describe.each(documents)("a change with %s", (_what, json) => {
  const rowJson = `{"id":"2","doc":${json}}`;
  const changes = [
    { at: 1, after: null, row: { id: "1" } },
    { at: 2, after: 1, rowJson },
    { at: 3, after: 2, row: { id: "3" } },
  ];

  it("is delivered with its neighbours", async () => {
    const { effects, handlers } = recorder();
    const { handler, letters } = await memoryConsumer(handlers);
    const answer = await handler(invocationOf(packed(changes)), timeLeft());
    expect(answer).toEqual({ batchItemFailures: [] });
    expect({ effects, letters }).toEqual({ effects: ["1", "2", "3"], letters: [] });
  });

  it("fails alone, is parked and sent as it was written, and redriven", async () => {
    const { effects, handlers, break: breaks } = recorder();
    breaks("2");
    const { handler, letters, table } = await memoryConsumer(handlers);
    const answer = await handler(invocationOf(packed(changes)), timeLeft());
    expect(answer).toEqual({ batchItemFailures: [] });
    expect(effects).toEqual(["1", "3"]);
    expect(table.items("change#").map((item) => item.event?.S?.includes(`"after":${rowJson}`))).toEqual([
      true,
    ]);
    expect(letters.length).toBe(1);
    // Not by toEqual: it recurses.
    const sent = JSON.parse(letters[0] as string) as { payload: unknown };
    expect(printJson(sent.payload) === printJson(JSON.parse(table.items("change#")[0]?.event?.S ?? ""))).toBe(
      true,
    );
    breaks();
    expect(await handler({ tributary: "redrive" }, timeLeft())).toMatchObject({ redriven: 1, done: 1 });
    expect(effects).toEqual(["1", "3", "2"]);
  });

  it("is one column of several whose change is known", async () => {
    const changed: (readonly string[])[] = [];
    const { handler } = await memoryConsumer((c) =>
      c.on("*", Operation.Update, (event) => void changed.push(event.changed)),
    );
    const before = JSON.parse('{"id":"2"}');
    const text = eventJson({ op: "u", at: 1, after: null, rowJson: rowJson.replace(/}$/, ',"n":2}') });
    const whole = text.replace('"before":null', `"before":${rowJson.replace(/}$/, ',"n":1}')}`);
    const record = kinesisRecord(
      recordJson([{ at: 1, after: null, row: before }]).replace(/\[.*\]/s, `[${whole}]`),
    );
    await handler(invocationOf(record), timeLeft());
    expect(changed).toEqual([["n"]]);
  });
});

describe("the text of a parked change is the one that capture wrote", () => {
  const rowJson = `{"id":"2","doc":{ "a" : 1.10, "a":${nested("12345678901234567", 3000)} }}`;
  const changes = [
    { at: 1, after: null, row: { id: "1" }, source: { ts_ms: 1 } },
    { at: 2, after: 1, rowJson, source: { ts_ms: 1 } },
  ] as const;
  const header = { topic: TOPIC, partition: 0, writer: 1 };
  const texts = changes.map((change) => eventJson(change));

  it.each<[string, () => string[]]>([
    ["packed", () => [recordJson(changes)]],
    [
      "packed with blanks",
      () => [recordJson(changes).replace('"events":[', '"events" : [ ').replace(/\]}$/, " ]\n}")],
    ],
    [
      "compressed",
      () => [compressedHead(header) + gzipSync(`[${texts.join(",")}]`).toString("base64") + COMPRESSED_TAIL],
    ],
    [
      "unpacked",
      () =>
        texts.map((text, i) =>
          text.replace(/,"after":[^,]*}}$/, unpackedEventTail(i === 0 ? null : at(1), header)),
        ),
    ],
  ])("%s", async (form, records) => {
    const { handlers, break: breaks } = recorder();
    breaks("2");
    const { handler, table } = await memoryConsumer(handlers);
    await handler(invocationOf(...records().map((text) => kinesisRecord(text))), timeLeft());
    const stored = table.items("change#").map((item) => item.event?.S);
    expect(stored).toEqual([form === "unpacked" ? records()[1] : texts[1]]);
  });

  it("as an object of the claim store, with what the record said around it", async () => {
    const directory = await mkdtemp(join(tmpdir(), "tributary-parked-"));
    onTestFinished(() => rm(directory, { recursive: true }));
    const { effects, handlers, break: breaks } = recorder();
    breaks("2");
    const { handler, table } = await memoryConsumer(handlers, { claims: pathToFileURL(directory).href });
    const large = {
      ...changes[1],
      rowJson: rowJson.replace('"doc"', `"text":"${"x".repeat(300_000)}","doc"`),
    };
    await handler(invocationOf(packed([changes[0], large])), timeLeft());
    const claim = JSON.parse(table.items("change#")[0]?.claim?.S ?? "{}") as ClaimCheck;
    const object = await readFile(join(directory, claim.key), "utf8");
    expect(object).toBe(eventJson(large).replace(/}}$/, `,"topic":"${TOPIC}","partition":0,"writer":1}}`));
    breaks();
    expect(await handler({ tributary: "redrive" }, timeLeft())).toMatchObject({ redriven: 1 });
    expect(effects).toEqual(["1", "2"]);
  });
});

function recorder() {
  const effects: string[] = [];
  let broken: string | undefined;
  return {
    effects,
    break: (id?: string) => {
      broken = id;
    },
    handlers: (c: Consumer) =>
      c.on("*", ALL_OPERATIONS, (event) => {
        const id = String(event.row?.id);
        if (id === broken) throw new Error("poison");
        effects.push(id);
      }),
  };
}
