import { defineError } from "../../change/tributary-error.ts";

/** The program that runs is an older Node than the code is written for. */
export class NodeVersionError extends defineError("NODE_VERSION", "stop").from(
  (found: string, needed: number) => ({
    message: `this is Node ${found}, and Tributary needs ${needed} or newer`,
    remedy: `npm install --save-dev node@${needed} (npx and the scripts of npm run that one in this project).`,
  }),
) {}

/** A handler, or the definition, names a table or topic that nothing comes on. */
export class HandlerPatternError extends defineError("HANDLER_PATTERN", "stop").from((text: string) => ({
  message: text,
  remedy:
    "Correct the pattern in the handler's .on(), or in the consumer's topics in the definition. Of a table that is still to be made this passes when it is there.",
})) {}

/** A server's clock and this machine's are far apart. */
export class ClockSkewError extends defineError("CLOCK_SKEW", "stop").from(
  (whose: string, skewMs: number) => ({
    message: `${whose} is ${Math.abs(Math.round(skewMs / 1000))} s ${skewMs > 0 ? "ahead of" : "behind"} the clock of this machine`,
    remedy:
      "Have both clocks set by NTP (timedatectl set-ntp true): signatures and tokens count for minutes only, and lag in seconds is measured between clocks.",
    /** Positive where theirs is ahead. */
    skewMs,
  }),
) {}

/** A role lacks a right that its part of the pipeline needs. */
export class RoleRightMissingError extends defineError("ROLE_RIGHT_MISSING", "stop").from(
  (role: string, action: string, resource: string, decision: string) => ({
    message: `${role} may not ${action} on ${resource} (${decision})`,
    remedy: `Allow ${action} on ${resource} in the policies of ${role}; the construct grants it: deploy the stack again where it was taken away by hand${decision === "explicitDeny" ? ", and find the statement that denies it" : ""}.`,
    action,
    resource,
  }),
) {}

/** The stream is not as the definition says. */
export class StreamSettingsError extends defineError("STREAM_SETTINGS", "stop") {}

/** A dead-letter queue is not there, or does not keep whole dead letters. */
export class DeadLetterQueueError extends defineError("DEAD_LETTER_QUEUE", "stop") {}

/** A consumer's function is not there, or not in order. */
export class ConsumerFunctionError extends defineError("CONSUMER_FUNCTION", "stop") {}

/** A consumer's event source mapping is not there, does not run, or has settings under which changes would be lost. */
export class ConsumerMappingError extends defineError("CONSUMER_MAPPING", "stop") {}

/** The service of the capture task is not there, or does not run what it should. */
export class CaptureServiceError extends defineError("CAPTURE_SERVICE", "stop") {}
