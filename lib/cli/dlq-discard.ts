import { clearReadAgain, listCaptureDeadLetters } from "../admin/dead-letters/capture.ts";
import { acknowledgeMessages } from "../admin/dead-letters/mended.ts";
import { type DeadLetterDetail, showDeadLetters } from "../admin/dead-letters/show.ts";
import { shellWord } from "../change/printed-command.ts";
import { ConfigurationError } from "../change/tributary-error.ts";
import { isAgreed } from "./agreed.ts";
import { deadLetterSceneOf, placeText } from "./dlq-place.ts";
import { type ChoiceOptions, checkChoice, nothingFits, OPERATIONS } from "./dlq-show.ts";
import { type RedriveArguments, redriveParked } from "./redrive.ts";
import { redriveSceneOf } from "./redrive-run.ts";
import { note, say, typed } from "./say.ts";

/** The options of `tributary dlq discard`. */
export interface DiscardOptions extends ChoiceOptions {
  readonly message?: string;
  readonly yes?: boolean;
  readonly function?: string;
  readonly entry?: string;
}

/** `tributary dlq discard`: gives one change up knowingly, or takes the message of one from the queue that needs nobody any more. */
export async function discardOne(options: DiscardOptions): Promise<void> {
  const { consumer, key, position, topic, message } = options;
  if (message !== undefined) return discardMessage(options, message);
  checkChoice(options);
  if (options.capture) return discardPutAside(options);
  const { place } = await deadLetterSceneOf(options);
  const choice = { consumer: consumer as string, key, position, topic };
  const found = await showDeadLetters(place, choice);
  const [letter] = found;
  if (!letter) return nothingFits(options);
  if (found.length > 1)
    refuse(
      "--position",
      undefined,
      `${found.length} dead letters fit, and one is given up at a time: ${found.map((one) => `--topic ${shellWord(one.topic ?? "")} --position ${one.position}`).join("; or ")}`,
    );
  switch (letter.state) {
    case "parked":
    case "skipped":
      return giveUp(letter, options);
    case "held":
      return refuse(
        "--key",
        key,
        `nothing of a held partition can be given up: what it holds is all that came since. Look with: tributary dlq show --consumer ${consumer}${placeText(options)} --key '*'`,
      );
    case "passing":
    case "unreadable":
      return refuse(
        "--position",
        position,
        "it cannot be given up now: its partition has not passed it, so it comes again by itself",
      );
    default:
      return takeAway(letter, options);
  }
}

/** A change that is open: the redrive gives it up, and goes on with those behind it. */
async function giveUp(letter: DeadLetterDetail, options: DiscardOptions): Promise<void> {
  const { consumer, topic, partition, key, waitingCount = 0 } = letter;
  const position = options.position ?? letter.position;
  const args: RedriveArguments = {
    ...options,
    ...{ consumer, position, topic, discard: true },
  };
  // The key chose it; from here on the position names it, so that nothing else can be given up.
  const { key: _, ...named } = args;
  const { by } = await redriveSceneOf(named);
  const isFirst = position === letter.position;
  const op = letter.event === undefined || !isFirst ? "change" : OPERATIONS[operationOf(letter.event)];
  const behind = isFirst ? waitingCount : Math.max(0, waitingCount - 1);
  if (!options.json)
    say(
      `Gives up the ${op} of ${letter.table ?? topic} at ${position} (${topic}/${partition}, key ${key}) for ${consumer}.`,
      "It takes no effect and nothing brings it again: the sink keeps its row as it is until a later change, or a backfill.",
      isFirst
        ? `${behind} changes of its key wait behind it: they are applied now, in order, by ${by}.`
        : `It waits behind the change at ${letter.position}, which is tried first, by ${by}; so are the ${behind} others that wait.`,
    );
  if (!(await isAllowed(options, "Give it up?"))) return;
  await redriveParked(named, { onTotals: ({ discarded }) => tellDiscarded(discarded, position ?? "") });
}

function tellDiscarded(discarded: number, position: string): void {
  if (discarded > 0) return;
  note(
    typed(
      `nothing was given up: the change at ${position} is being redriven by somebody else, stands behind one that fails, or is through already. See: tributary dlq list`,
    ),
  );
  process.exitCode = 1;
}

/** A dead letter that stands in the queue alone, or that a later change has superseded. */
async function takeAway(letter: DeadLetterDetail, options: DiscardOptions): Promise<void> {
  const { consumer, messages, state, position, topic } = letter;
  const { place } = await deadLetterSceneOf(options);
  const url = place.queues[consumer];
  if (url === undefined || messages.length === 0) {
    note(`no message in the queue tells of it (${state}): there is nothing to take away`);
    return;
  }
  const why: Partial<Record<DeadLetterDetail["state"], string>> = {
    superseded: "A later change of its row took effect, so it never will.",
    mended: "Its change took effect or was given up.",
    "unreadable record":
      "Nobody knows what it held but by this message; have the topic's rows read again: tributary consumer accept-gap --consumer <consumer> --topic <topic>",
  };
  if (!options.json)
    say(
      `Deletes ${messages.length} messages of ${consumer}'s dead-letter queue, and nothing else: ${topic ?? "no topic"}, ${position ?? "no position"} (${state}).`,
      typed(why[state] ?? ""),
    );
  if (!(await isAllowed(options, "Delete?"))) return;
  tellDeleted(await acknowledgeMessages(place, url, new Set(messages)), messages.length, options);
}

/** One message by its id, whatever it holds. */
async function discardMessage(options: DiscardOptions, id: string): Promise<void> {
  const { consumer, capture, key, position } = options;
  if ((consumer === undefined) === !capture)
    refuse("--consumer", consumer, "name a consumer, or give --capture for capture's queue");
  if (key !== undefined || position !== undefined)
    refuse("--message", id, "a message is named alone, without --key and --position");
  const { place } = await deadLetterSceneOf(options);
  const url = capture ? place.captureQueue : place.queues[consumer as string];
  if (url === undefined) return refuse("--message", id, "nothing here names the queue: --stack");
  if (!options.json)
    say(
      `Deletes the message ${id} of the dead-letter queue of ${capture ? "capture" : consumer}, whatever it holds, and nothing else.`,
    );
  if (!(await isAllowed(options, "Delete it?"))) return;
  tellDeleted(await acknowledgeMessages(place, url, new Set([id])), 1, options);
}

async function discardPutAside(options: DiscardOptions): Promise<void> {
  const { position, topic } = options;
  const { place } = await deadLetterSceneOf(options);
  const { letters, queue } = await listCaptureDeadLetters(place);
  const found = letters.filter(
    (one) => one.position === position && (topic === undefined || one.topic === topic),
  );
  if (queue.error) throw queue.error;
  const [letter] = found;
  if (!letter) return nothingFits(options);
  if (found.length > 1)
    refuse(
      "--topic",
      topic,
      `two topics have one at this position: ${found.map((one) => one.topic).join(", ")}`,
    );
  const { table, state, messages } = letter;
  if (queue.url === undefined || messages.length === 0) {
    note("its message is not in the queue: there is nothing to take away");
    return;
  }
  const isMended = state === "read again";
  if (!options.json)
    say(
      `Deletes the message of the change of ${table} at ${position} from capture's dead-letter queue, and nothing else: the one whole copy of the change.`,
      isMended
        ? "Its table was read again since, with a sweep: sinks hold the row as it is."
        : typed(
            `Its table was not read again since: sinks may lack the row, or keep an old one. First: tributary backfill start --table ${shellWord(table)}${placeText(options)}`,
          ),
    );
  if (!(await isAllowed(options, "Delete it?"))) return;
  tellDeleted(await acknowledgeMessages(place, queue.url, new Set(messages)), messages.length, options);
}

/** `tributary dlq redrive --capture`: takes away what was read again, and says what the rest needs. */
export async function redrivePutAside(options: DiscardOptions): Promise<void> {
  const { place } = await deadLetterSceneOf(options);
  const cleared = await clearReadAgain(place);
  const { letters } = await listCaptureDeadLetters(place);
  if (!options.json && cleared !== undefined)
    say(`${cleared.removed} messages whose table was read again since were deleted from capture's queue.`);
  if (options.json) for (const letter of letters) say(JSON.stringify({ of: "capture", ...letter }));
  if (letters.length === 0) return;
  process.exitCode = 1;
  if (options.json) return;
  say(
    `${letters.length} are left. A change that capture put aside cannot be applied: its row is read again.`,
  );
  for (const table of new Set(letters.map((one) => one.table))) {
    const own = letters.filter((one) => one.table === table);
    const isReading = own.every(({ state }) => state === "reading");
    say(
      typed(
        isReading
          ? `${table}: ${own.length}, being read again: tributary backfill status`
          : `${table}: ${own.length}; correct the rows, then: tributary backfill start --table ${shellWord(table)}${placeText(options)}`,
      ),
    );
  }
}

function tellDeleted(deleted: number, of: number, { json }: DiscardOptions): void {
  if (json) say(JSON.stringify({ deleted, of }));
  else say(`${deleted} of ${of} messages deleted.`);
  if (deleted === of) return;
  note(
    typed(
      "the others were not seen: somebody else reads the queue, or they are gone. See: tributary dlq list",
    ),
  );
  process.exitCode = 1;
}

async function isAllowed({ yes, json }: DiscardOptions, question: string): Promise<boolean> {
  if (yes || (await isAgreed(question))) return true;
  if (!json) say("Nothing was done.");
  process.exitCode = 1;
  return false;
}

function operationOf(event: string): keyof typeof OPERATIONS {
  return (JSON.parse(event) as { readonly op: keyof typeof OPERATIONS }).op;
}

function refuse(path: string, value: string | undefined, remedy: string): never {
  throw new ConfigurationError("The command line", [{ path, value, remedy }]);
}
