import { ALARMS } from "./alarms.ts";
import { SERVER_ERRORS, SLOT_ERRORS, SLOTS_ERRORS, STATE_ERRORS } from "./capture-errors.ts";
import { COMMAND_ERRORS } from "./command-errors.ts";
import { CONSUMER_ERRORS, DEAD_LETTER_ERRORS } from "./consumer-errors.ts";
import { DOCTOR_ERRORS } from "./doctor-errors.ts";
import type { Entry, Section } from "./entry.ts";
import { CAPTURE_WARNINGS, PREFLIGHT_FINDINGS } from "./findings.ts";
import { LOCAL_ERRORS } from "./local-errors.ts";
import { DECODING_ERRORS, HOLD_ERRORS, STREAM_ERRORS } from "./stream-errors.ts";

/** The sections of errors, in the order of docs/08. */
export const ERROR_SECTIONS: readonly Section[] = [
  SERVER_ERRORS,
  SLOT_ERRORS,
  SLOTS_ERRORS,
  STATE_ERRORS,
  DECODING_ERRORS,
  HOLD_ERRORS,
  STREAM_ERRORS,
  CONSUMER_ERRORS,
  DEAD_LETTER_ERRORS,
  COMMAND_ERRORS,
  DOCTOR_ERRORS,
  LOCAL_ERRORS,
];

/** The sections of what preflight and the capture log tell of without an error of its own. */
export const FINDING_SECTIONS: readonly Section[] = [PREFLIGHT_FINDINGS, CAPTURE_WARNINGS];

/** Every code that a log, a command or an alarm can show: the one source of what is said of them. docs/08 and docs/11 are made from it. */
export const CATALOGUE: readonly Section[] = [...ERROR_SECTIONS, ...FINDING_SECTIONS, ALARMS];

/**
 * Returns what is known of a code. Upper and lower case are the same, so one word may stand for two things: the error GAP and the
 * alarm Gap. Of an alarm its whole name in CloudWatch may be given: `Shop/shop: Gap-order-summary`.
 */
export function entriesOf(code: string): readonly Entry[] {
  const wanted = code.trim().toLowerCase();
  const exact = allEntries().filter((entry) => entry.code.toLowerCase() === wanted);
  if (exact.length > 0) return exact;
  const alarm = /^(?:.*: )?([a-z]+)(?:-.+)?$/.exec(wanted)?.[1];
  return allEntries().filter((entry) => entry.kind === "alarm" && entry.code.toLowerCase() === alarm);
}

/** All entries, in their order. */
export function allEntries(): readonly Entry[] {
  return CATALOGUE.flatMap(({ entries }) => entries);
}
