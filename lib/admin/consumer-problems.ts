import { shellWord } from "../change/printed-command.ts";
import type { ConsumerSummary, StatusProblem } from "./pipeline-status.ts";
import { counted, problem } from "./problem-words.ts";
import type { PipelineResources } from "./resources.ts";
import { ofPausedConsumer, type ProblemWords as Words } from "./status-pauses.ts";

/** A consumer that is behind for longer counts as late, in milliseconds. */
const LATE_CONSUMER_MS = 600_000;

/** Returns what of a consumer needs a person. */
export function consumerProblems(
  consumer: ConsumerSummary,
  { consumers }: PipelineResources,
): StatusProblem[] {
  const { name, attention, lag, paused, deadLetterMessages } = consumer;
  const words: Words[] = [];
  const flag = `--consumer ${shellWord(name)}`;
  if (paused) words.push(...ofPausedConsumer(consumer, paused));
  words.push(...ofStops(attention, flag));
  if (consumer.deadLetterKeys > 0)
    words.push({
      message: `${counted(consumer.deadLetterKeys, "key has", "keys have")} open dead letters, and ${counted(consumer.parked, "change is", "changes are")} parked`,
      remedy: "Correct what made them fail, then redrive them.",
      command: `tributary dlq redrive ${flag}`,
    });
  if (consumer.unhealed > 0)
    words.push({
      message: `${counted(consumer.unhealed, "stretch", "stretches")} of changes missing, whose rows are not in place again`,
      remedy: "The list says which, and what each waits for.",
      command: `tributary consumer status ${flag}`,
    });
  const explains = paused || attention.some(({ gap, hold }) => gap || hold);
  if (lag.state === "behind" && lag.forMs >= LATE_CONSUMER_MS && !explains) {
    const logGroup = consumers[name]?.function;
    words.push({
      message: `is behind for ${Math.round(lag.forMs / 60_000)} min${lag.atLeast ? " or more" : ""} in ${lag.topic}`,
      remedy: "Look whether its function runs, fails or is throttled: its log, and the event source mapping.",
      command: logGroup
        ? `aws logs tail /aws/lambda/${logGroup} --since 10m`
        : `tributary consumer status ${flag}`,
    });
  }
  if (deadLetterMessages && consumer.deadLetterKeys === 0)
    words.push({
      severity: "note",
      message: `${counted(deadLetterMessages, "message is", "messages are")} in its dead-letter queue, and no key waits for them`,
      remedy: "They are of records that could not be read, or were redriven: look at them, and remove them.",
      command: `tributary dlq list ${flag}`,
    });
  return words.map((each) => problem(`consumer ${name}`, each));
}

/** Returns the problems of partitions that stand, one for each cause. A gap or a lost object is the cause of the hold behind it: no redrive mends that. */
function ofStops(partitions: ConsumerSummary["attention"], flag: string): Words[] {
  const words: Words[] = [];
  const ofObject = partitions.filter(({ gap }) => gap?.cause === "object");
  if (ofObject.length > 0)
    words.push({
      code: "CLAIM_MISSING",
      message: `${counted(ofObject.length, "partition stands", "partitions stand")} before a change whose object in the claim store is gone, or another one: nothing behind it is applied`,
      remedy: `Restore the object, then redrive. Where it is gone for good, accept that, and the rows are read again: ${acceptance(ofObject, flag)}`,
      command: `tributary dlq redrive ${flag}`,
    });
  const ofGap = partitions.filter(({ gap }) => gap && gap.cause !== "object");
  if (ofGap.length > 0)
    words.push({
      code: ofGap.every(({ gap }) => gap?.cause === "expired") ? "GAP_EXPIRED" : "GAP",
      message: `${counted(ofGap.length, "partition stands", "partitions stand")} before missing changes: nothing behind them is applied`,
      remedy:
        "Look first for the records: an event source mapping that gave up, a stream whose retention was over. Then accept it: the rows are read again.",
      command: acceptance(ofGap, flag),
    });
  const [first, ...further] = partitions.flatMap(({ unread }) => unread ?? []);
  if (first)
    words.push({
      ...first,
      message: `${counted(further.length + 1, "partition waits", "partitions wait")}, since nobody can tell where it stands: ${first.message}`,
      command: `tributary consumer status ${flag}`,
    });
  const [held, ...others] = partitions.filter(({ gap, hold }) => hold && !gap);
  if (held)
    words.push({
      message: `${counted(others.length + 1, "partition is", "partitions are")} held since ${held.hold?.since}: ${held.hold?.cause}`,
      remedy: "Correct what made the change fail, then redrive it.",
      command: `tributary dlq redrive ${flag}`,
    });
  return words;
}

function acceptance([first]: ConsumerSummary["attention"], flag: string): string {
  return `tributary consumer accept-gap ${flag} --topic ${shellWord(first?.topic ?? "")}`;
}
