import type { CaptureDeadLetter, CaptureDeadLetterList } from "../admin/dead-letters/capture.ts";
import { listCaptureDeadLetters } from "../admin/dead-letters/capture.ts";
import { listDeadLetters, type OpenDeadLetter, type QueueLook } from "../admin/dead-letters/list.ts";
import { counted } from "../admin/problem-words.ts";
import { columns } from "./columns.ts";
import { type DeadLetterOptions, deadLetterSceneOf, placeText } from "./dlq-place.ts";
import { showValue } from "./pretty-line.ts";
import { note, say, typed } from "./say.ts";

/** The options of `tributary dlq list`. */
export interface ListOptions extends DeadLetterOptions {
  readonly json?: boolean;
}

const COLUMNS = ["of", "topic/partition", "key", "position", "error", "attempts", "since", "behind", "state"];

const STATES: Readonly<Record<string, string>> = {
  skipped: "skipped: a later change of its key may pass it",
  held: "held: all of its partition waits",
  superseded: "superseded: a later change took effect",
  passing: "an invocation is at work on it, or comes again",
  unreadable: "its item in the state table cannot be read",
  mended: "through: only its message is left",
  "unreadable record": "a record that could not be read",
  foreign: "a message that is no dead letter of ours",
  open: "put aside; its table is not read again",
  reading: "put aside; its table is being read again",
  "read again": "put aside; its table was read again since",
};

/** `tributary dlq list`: all open dead letters, as a table or as lines of JSON. */
export async function listOpen(options: ListOptions): Promise<void> {
  const scene = await deadLetterSceneOf(options);
  const names = options.capture && options.consumer === undefined ? [] : scene.consumers;
  const isCaptureMeant = options.capture || options.consumer === undefined;
  const [{ letters: all, queues }, aside] = await Promise.all([
    listDeadLetters(scene.place, names),
    isCaptureMeant ? listCaptureDeadLetters(scene.place) : undefined,
  ]);
  // Nobody needs to hear of what is acknowledged: its message is gone.
  const seen = new Set(queues.filter(isWhole).map(({ consumer }) => consumer));
  const letters = all.filter(
    ({ state, messages, consumer }) => state !== "superseded" || messages.length > 0 || !seen.has(consumer),
  );
  const put = (aside?.letters ?? []).filter(
    ({ state, messages }) => state !== "read again" || messages.length > 0,
  );
  if (options.json) {
    for (const letter of letters) say(JSON.stringify({ of: "consumer", ...letter }));
    for (const letter of put) say(JSON.stringify({ of: "capture", ...letter }));
  } else printTable(letters, put, options);
  const isUnseen = tellOfQueues(queues, aside);
  if (letters.length + put.length > 0 || isUnseen) process.exitCode = 1;
}

function printTable(
  letters: readonly OpenDeadLetter[],
  aside: readonly CaptureDeadLetter[],
  options: ListOptions,
): void {
  if (letters.length + aside.length === 0) {
    say("No open dead letters.");
    return;
  }
  const rows = [COLUMNS.map((name) => name.toUpperCase()), ...letters.map(rowOf), ...aside.map(rowOfAside)];
  say(...columns(rows));
  const behind = letters.reduce((sum, { waiting = 0 }) => sum + waiting, 0);
  const counts = [
    ...(letters.length > 0
      ? [`${letters.length} of consumers (${counted(behind, "change waits", "changes wait")} behind them)`]
      : []),
    ...(aside.length > 0 ? [`${aside.length} of capture`] : []),
  ];
  const place = placeText(options);
  say(
    "",
    `${counted(letters.length + aside.length, "open dead letter", "open dead letters")}: ${counts.join(", ")}.`,
    ...(letters[0]
      ? [
          typed(
            `Look at one:       tributary dlq show --consumer ${letters[0].consumer} --position <position>${place}`,
          ),
          typed(`When it is mended: tributary dlq redrive --consumer ${letters[0].consumer}${place}`),
        ]
      : []),
    ...(aside.length > 0
      ? [typed(`Look at capture's: tributary dlq show --capture --position <position>${place}`)]
      : []),
  );
}

function rowOf(letter: OpenDeadLetter): string[] {
  const { consumer, topic, partition, key, position, error, attempts, firstFailedAt, waiting, state } =
    letter;
  return [
    consumer,
    topic === undefined ? "-" : `${topic}/${partition ?? "?"}`,
    key === undefined ? "-" : showValue(key),
    position ?? "-",
    error ?? "-",
    attempts === undefined ? "-" : String(attempts),
    firstFailedAt ?? "-",
    letter.heldBytes === undefined ? String(waiting ?? "-") : `${Math.ceil(letter.heldBytes / 1024)} KB`,
    [
      STATES[state] ?? state,
      ...(letter.messages.length === 0 || !isAlone(letter) ? [] : [`message ${letter.messages.join(", ")}`]),
    ].join(", "),
  ];
}

/** Nothing but its message's id names it. */
function isAlone({ position }: OpenDeadLetter): boolean {
  return position === undefined;
}

function rowOfAside({ topic, position, code, putAsideAt, state, messages }: CaptureDeadLetter): string[] {
  const unsent = messages.length === 0 ? ", not in the queue" : "";
  return ["(capture)", topic, "-", position, code, "-", putAsideAt, "-", (STATES[state] ?? state) + unsent];
}

function isWhole({ url, error, more, inFlight }: Omit<QueueLook, "consumer">): boolean {
  return url !== undefined && error === undefined && !more && inFlight === 0;
}

/** Says what could not be seen. Returns true if that is a failure. */
function tellOfQueues(queues: readonly QueueLook[], aside: CaptureDeadLetterList | undefined): boolean {
  const looks = [
    ...queues.map((look) => ({ ...look, whose: look.consumer, isExpected: true })),
    ...(aside ? [{ ...aside.queue, whose: "capture", isExpected: false }] : []),
  ];
  for (const { whose, url, error, more, inFlight, read, isExpected } of looks) {
    if (error)
      note(
        `what stands in the queue of ${whose} alone is not listed: ${error.message}\n  what to do: ${error.remedy}`,
      );
    else if (url === undefined && isExpected)
      note(
        `the dead-letter queue of ${whose} was not read, since nothing here names it (--stack, or --consumer with TRIBUTARY_DEAD_LETTER_QUEUE_URL): unreadable records stand there alone`,
      );
    if (more) note(`the queue of ${whose} holds more than the ${read} messages that were read`);
    if (inFlight > 0)
      note(
        `about ${inFlight} messages of ${whose} are being read by somebody else right now, and are not listed`,
      );
  }
  if ((aside?.foreign ?? 0) > 0)
    note(`${aside?.foreign} messages in capture's queue are no dead letters of this pipeline`);
  return looks.some(({ error }) => error !== undefined);
}
