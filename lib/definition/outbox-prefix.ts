/** The prefix of the logical messages that are events, where nothing else is said. */
export const OUTBOX_PREFIX = "outbox";
