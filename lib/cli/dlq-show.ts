import { type CaptureDeadLetterDetail, showCaptureDeadLetters } from "../admin/dead-letters/capture.ts";
import type { RawChange, RawValue } from "../admin/dead-letters/put-aside-row.ts";
import { type DeadLetterDetail, showDeadLetters } from "../admin/dead-letters/show.ts";
import { counted } from "../admin/problem-words.ts";
import type { WireRow, WireValue } from "../change/event.ts";
import { printJson } from "../change/json-print.ts";
import { shellWord } from "../change/printed-command.ts";
import { ConfigurationError } from "../change/tributary-error.ts";
import { type DeadLetterOptions, deadLetterSceneOf, placeText } from "./dlq-place.ts";
import { readableEvent } from "./readable-event.ts";
import { say, typed } from "./say.ts";

/** The options that choose dead letters. */
export interface ChoiceOptions extends DeadLetterOptions {
  readonly key?: string;
  readonly position?: string;
  readonly topic?: string;
  readonly json?: boolean;
}

/** Names of operations, for people. */
export const OPERATIONS = {
  ...{ c: "insert", u: "update", d: "delete", r: "read by a backfill", t: "truncate", m: "message" },
} as const;

/** `tributary dlq show`: a dead letter as a whole. Row values are what it is for: they go to standard output only. */
export async function showOne(options: ChoiceOptions): Promise<void> {
  const { consumer, key, position, topic, json, capture } = options;
  checkChoice(options);
  const { place } = await deadLetterSceneOf(options);
  if (capture) {
    const found = (await showCaptureDeadLetters(place, position ?? "")).filter(
      (letter) => topic === undefined || letter.topic === topic,
    );
    if (found.length === 0) return nothingFits(options);
    for (const letter of found) {
      if (json) say(JSON.stringify({ of: "capture", ...letter, unread: problemOf(letter.unread) }));
      else say(...captureLines(letter, options));
    }
    return;
  }
  const found = await showDeadLetters(place, { consumer: consumer as string, key, position, topic });
  if (found.length === 0) return nothingFits(options);
  for (const letter of found) {
    if (json) say(jsonOf(letter));
    else say(...linesOf(letter, options), "");
  }
}

/** @throws ConfigurationError */
export function checkChoice({ consumer, capture, key, position }: ChoiceOptions): void {
  const problem = (path: string, value: string | undefined, remedy: string) => {
    throw new ConfigurationError("The command line", [{ path, value, remedy }]);
  };
  if ((consumer === undefined) === !capture)
    problem("--consumer", consumer, "name a consumer, or give --capture for a change that capture put aside");
  if (capture && position === undefined)
    problem("--position", position, "name the position: tributary dlq list has it");
  if (capture && key !== undefined)
    problem("--key", key, "a change that capture put aside has no key that is known: --position");
  if (key === undefined && position === undefined)
    problem("--key", key, "name a key or a position: tributary dlq list has both");
}

/** Says that nothing is there by these options. */
export function nothingFits({ consumer, key, position, topic, capture, ...place }: ChoiceOptions): void {
  const what = [
    ...(key === undefined ? [] : [`key ${key}`]),
    ...(position === undefined ? [] : [`position ${position}`]),
    ...(topic === undefined ? [] : [`topic ${topic}`]),
  ].join(", ");
  process.stderr.write(
    typed(
      `tributary: ${capture ? "capture" : consumer} has no open dead letter of ${what}: it took effect, was given up, or never was. What is open: tributary dlq list${capture ? " --capture" : ` --consumer ${consumer}`}${placeText(place)}\n`,
    ),
  );
  process.exitCode = 1;
}

/** The event as it was written, without a number of it read and printed anew. */
function jsonOf({ event, unread, ...letter }: DeadLetterDetail): string {
  const facts = JSON.stringify({ of: "consumer", ...letter, unread: problemOf(unread) });
  return event === undefined ? facts : `${facts.slice(0, -1)},"event":${event}}`;
}

function problemOf(error: DeadLetterDetail["unread"]) {
  return error && { code: error.code, message: error.message, remedy: error.remedy };
}

function linesOf(letter: DeadLetterDetail, options: ChoiceOptions): string[] {
  const { consumer, state, topic, partition, key, position, error, attempts, unread, record } = letter;
  const where = topic === undefined ? "no topic that is known" : `${topic}/${partition ?? "?"}`;
  const event = letter.event === undefined ? undefined : readableEvent(letter.event);
  const source = event?.source;
  return [
    `${consumer}: ${where}${key === undefined ? "" : `, key ${plain(key)}`}: ${state}`,
    `  position     ${position ?? "not known"}`,
    ...(event && source
      ? [
          `  change       ${OPERATIONS[event.op]} of ${source.schema}.${source.table}`,
          `  origin       epoch ${source.epoch}, LSN ${source.lsn}, transaction ${source.txId}, committed ${new Date(source.ts_ms).toISOString()}`,
          ...rowLines("before", event.before),
          ...rowLines("after", event.after),
          ...listLine("unchanged", event.unchanged),
          ...listLine("omitted", event.omitted),
          ...(event.message
            ? [`  message      ${plain(event.message.prefix)}: ${event.message.content} (base64)`]
            : []),
        ]
      : [`  change       ${unread ? `cannot be read: ${plain(unread.message)}` : "not kept"}`]),
    ...(unread ? [`  what to do   ${plain(unread.remedy)}`] : []),
    ...(record
      ? [
          `  record       sequence number ${record.sequenceNumber} of ${record.shardId}, partition key ${plain(record.partitionKey)}`,
          `               held the changes ${record.first ?? "?"} to ${record.last ?? "?"}`,
        ]
      : []),
    `  error        ${plain(error.name)}: ${indented(error.message)}`,
    ...error.stack
      .split("\n")
      .slice(1, 40)
      .map((line) => `    ${plain(line.trimEnd())}`),
    `  failed       ${attempts} ${letter.hold ? "tries" : "calls"}, first ${letter.firstFailedAt}, last ${letter.lastFailedAt}`,
    ...behindLines(letter),
    ...(letter.messages.length > 0 ? [`  in the queue ${letter.messages.join(", ")}`] : []),
    ...remedyLines(letter, options).map(
      (line, i) => `${i === 0 ? "  what to do  " : "              "} ${typed(line)}`,
    ),
  ];
}

function rowLines(name: string, row: WireRow | null | undefined): string[] {
  if (!row) return [];
  const width = Math.max(...Object.keys(row).map((column) => column.length), 0);
  return [
    `  ${name}`,
    ...Object.entries(row).map(
      ([column, value]) => `    ${plain(column).padEnd(width)}  ${valueText(value)}`,
    ),
  ];
}

function listLine(name: string, columns: readonly string[] | undefined): string[] {
  return columns?.length ? [`  ${name.padEnd(12)} ${columns.map(plain).join(", ")}`] : [];
}

function behindLines({ waiting, waitingCount, hold, state }: DeadLetterDetail): string[] {
  if (hold)
    return [
      `  held         since ${hold.since} because of ${hold.cause}: ${Math.ceil(hold.bytes / 1024)} KB of records wait in order, next try ${new Date(hold.nextTry).toISOString()}`,
    ];
  if (!waitingCount) return ["  behind it    nothing waits"];
  const [one, several] =
    state === "skipped"
      ? ["later change of its key failed too", "later changes of its key failed too"]
      : ["change of its key waits", "changes of its key wait"];
  return [
    `  behind it    ${counted(waitingCount, one, several)}:`,
    ...waiting.map(
      ({ position, op, table }) =>
        `    ${position}  ${op ? OPERATIONS[op] : "large change"} of ${plain(table)}`,
    ),
    ...(waitingCount > waiting.length ? [`    and ${waitingCount - waiting.length} more`] : []),
  ];
}

/** What mends it, as commands for the place that was asked. */
function remedyLines(letter: DeadLetterDetail, options: ChoiceOptions): string[] {
  const { consumer, key, position, topic, state } = letter;
  const place = placeText(options);
  const mine = `--consumer ${consumer}${place}`;
  const byKey = key && key !== "*" ? `--key ${shellWord(key)}` : `--position ${position}`;
  const only = topic === undefined ? "" : ` --topic ${shellWord(topic)}`;
  switch (state) {
    case "parked":
    case "skipped":
      return [
        "correct the handler and deploy it, then:",
        `  tributary dlq redrive ${mine} ${byKey}${only}`,
        "or, where it can never take effect, give this one change up and go on with those behind it:",
        `  tributary dlq discard ${mine} --position ${position}${only}`,
      ];
    case "held":
      return [
        "correct what it waits for (the error above says it); it is then tried by itself with the next change, or now:",
        `  tributary dlq redrive ${mine} --key '*'${only}`,
        "where changes are missing for good:",
        `  tributary consumer accept-gap ${mine}${only} --partition ${letter.partition}`,
      ];
    case "superseded":
      return [
        "nothing: a later change of its row took effect, so a redrive refuses it. To take its message from the queue:",
        `  tributary dlq discard ${mine} --position ${position}${only}`,
      ];
    case "unreadable record":
      return topic === undefined
        ? [
            "see what wrote it. To take its message from the queue:",
            `  tributary dlq discard ${mine} --message ${letter.messages[0]}`,
          ]
        : [
            "have the rows that it held read again; its message then goes with the next redrive:",
            `  tributary consumer accept-gap ${mine}${only} --partition ${letter.partition}`,
          ];
    case "mended":
      return ["nothing is left but its message:", `  tributary dlq redrive ${mine}`];
    case "passing":
      return ["nothing yet: an invocation is at work on it, or it comes again by itself"];
    default:
      return [`look at it again: tributary dlq list ${mine}`];
  }
}

function captureLines(letter: CaptureDeadLetterDetail, options: ChoiceOptions): string[] {
  const { topic, table, position, code, message, putAsideAt, origin, change, unread } = letter;
  return [
    `capture: ${topic}, ${table}: put aside ${putAsideAt}`,
    `  position     ${position}`,
    ...(origin ? [`  origin       LSN ${origin.lsn}, transaction ${origin.xid}`] : []),
    `  error        ${code}: ${plain(message)}`,
    ...(origin?.column === undefined ? [] : [`  column       ${plain(origin.column)}`]),
    ...(change
      ? [
          `  change       ${change.op} of ${table}, as the server sent it`,
          ...rawLines("before", change.before),
          ...rawLines("after", change.after),
        ]
      : [
          `  change       ${unread ? `cannot be read: ${unread.message}` : "is not in the queue (any more)"}`,
        ]),
    ...(unread ? [`  what to do   ${plain(unread.remedy)}`] : []),
    ...captureRemedy(letter, options).map(
      (line, i) => `${i === 0 ? "  what to do  " : "              "} ${typed(line)}`,
    ),
    "",
  ];
}

/** What mends a change that capture put aside. */
export function captureRemedy(
  { table, position, state }: CaptureDeadLetterDetail,
  options: ChoiceOptions,
): string[] {
  const place = placeText(options);
  const discard = `  tributary dlq discard --capture${place} --position ${position}`;
  switch (state) {
    case "open":
      return [
        "correct the row in the database, then have its table read again:",
        `  tributary backfill start${place} --table ${shellWord(table)}`,
        "then, or where the row is of no use, take the message from the queue:",
        discard,
      ];
    case "reading":
      return [
        "its table is being read again: tributary backfill status. When that has ended:",
        `  tributary dlq redrive --capture${place}`,
      ];
    case "read again":
      return [
        "nothing is left but its message, the one whole copy of the change as it was:",
        `  tributary dlq redrive --capture${place}`,
      ];
  }
}

function rawLines(name: string, row: RawChange["after"]): string[] {
  if (!row) return [];
  const width = Math.max(...Object.keys(row).map((column) => column.length), 0);
  const text = (value: RawValue) => (typeof value === "string" ? value : JSON.stringify(value.text));
  return [
    `  ${name}`,
    ...Object.entries(row).map(
      ([column, value]) => `    ${plain(column).padEnd(width)}  ${plain(text(value))}`,
    ),
  ];
}

function valueText(value: WireValue): string {
  return plain(typeof value === "string" ? JSON.stringify(value) : printJson(value));
}

function indented(text: string): string {
  return text.split("\n").map(plain).join("\n    ");
}

/** Without what a terminal would take for a command. */
function plain(text: string): string {
  return text.replace(
    /\p{Cc}/gu,
    (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`,
  );
}
