import { errorSection, NOTHING_RUNS, type Section } from "./entry.ts";

const GOES_ON = "What runs goes on as it is.";

/** What `tributary doctor` finds beyond what capture and consumers stop for. */
export const DOCTOR_ERRORS: Section = errorSection("Doctor", NOTHING_RUNS, {
  NODE_VERSION: {
    retry: "stop",
    meaning: "an older Node runs the command",
    why: "The command is JavaScript of Node 24, and so is the handlers' Lambda runtime.",
    remedy: "run `npm install --save-dev node@24`",
  },
  HANDLER_PATTERN: {
    retry: "stop",
    meaning: "a handler's pattern, or one of the consumer's `topics`, fits no captured table",
    why: "A misspelled table or topic, a table that `source.tables` does not capture, or one that is still to be made.",
    remedy: "correct it; the message names what was meant where it is near",
    ifNothing:
      "The handler is never called. Changes that no handler matches are passed, and counted as unhandled.",
  },
  CLOCK_SKEW: {
    retry: "stop",
    meaning: "the database's clock or AWS's is more than 30 s from this machine's",
    why: "A machine without NTP, or one that was suspended.",
    remedy: "set both clocks by NTP",
    ifNothing:
      "Lag in seconds is wrong by as much. From some minutes on AWS refuses signatures, and the database IAM tokens.",
  },
  ROLE_RIGHT_MISSING: {
    retry: "stop",
    meaning: "a role lacks the right that the message names, as `iam:SimulatePrincipalPolicy` says",
    why: "A policy was changed by hand, or a boundary or a statement denies what the construct allows.",
    remedy: "allow it: deploy the stack again, or find the statement that denies it",
    ifNothing: "The capture task, or the function, fails as soon as it needs it.",
  },
  STREAM_SETTINGS: {
    retry: "stop",
    meaning:
      "the stream is not there, keeps records for less time than the definition says, or takes smaller ones",
    why: "It was changed by hand, or the definition was, and is not deployed.",
    remedy: "deploy the stack again, or run the `aws` command that is printed",
    ifNothing: `${GOES_ON} A consumer that stands still loses changes sooner than its alarms say.`,
  },
  DEAD_LETTER_QUEUE: {
    retry: "stop",
    meaning: "there is no such queue",
    why: "It was deleted, or the URL is of another account or region.",
    remedy:
      "correct URL, account or region; one that somebody deleted no deploy makes again: run the `aws sqs create-queue` that `tributary doctor` prints",
    ifNothing: `${GOES_ON} The first change that fails for good holds its partition.`,
  },
  CONSUMER_FUNCTION: {
    retry: "stop",
    meaning: "a consumer's function is not there, not in order, or has another state table",
    why: "It was changed or deleted by hand, or its last deployment failed.",
    remedy: "deploy the stack again",
    ifNothing: "The consumer stands still, or does what it did before.",
  },
  CONSUMER_MAPPING: {
    retry: "stop",
    meaning:
      "an event source mapping is not there, is disabled, has settings under which Lambda would discard changes, or its last invocation failed",
    why: "It was changed by hand: the construct has Lambda try for ever, since only the library gives up, change by change. Or the function ends with an error, before or beside its handlers.",
    remedy: "run the `aws` command that is printed",
    ifNothing:
      "The consumer stands still until the stream's records expire; or changes are discarded, and their partition stops with `GAP`.",
  },
  CAPTURE_SERVICE: {
    retry: "stop",
    meaning:
      "the service of the capture task is not there, or runs fewer tasks than it should (the message has the last one's end); or a task no longer reports",
    why: "The task stops again and again, was killed, or the service was set to none.",
    remedy: "read the end of its log, which tells a code and what to do",
    ifNothing: "Nothing is captured, and PostgreSQL keeps WAL for the slot.",
  },
});
