import type { RetryDirective } from "../change/tributary-error.ts";

/** What a code stands for: an error that is thrown, something that preflight or a log line warns of, an alarm of a deployed pipeline. */
export type EntryKind = "error" | "finding" | "alarm";

/** All that is known of a code without looking at the pipeline. Texts are Markdown: backticks around what is typed, links from the folder docs/. */
export interface Entry {
  /** As it is printed: `SLOT_LOST`, `WalBudget`. */
  readonly code: string;
  readonly kind: EntryKind;
  /** Of an error: its directive, as docs/08 has it; `retry or stop` where each error of the code has its own. */
  readonly retry?: RetryDirective | "retry or stop";
  readonly meaning: string;
  readonly why?: string;
  readonly remedy: string;
  /** What becomes of the pipeline if nobody acts. */
  readonly ifNothing: string;
  /** The section of the docs that has it, with its anchor: `docs/08-errors.md#on-a-laptop`. */
  readonly page: string;
}

/** The entries of one section of the docs. */
export interface Section {
  readonly title: string;
  readonly entries: readonly Entry[];
}

/** What is written of an error: the section has the rest. */
interface ErrorText {
  readonly retry: RetryDirective | "retry or stop";
  readonly meaning: string;
  readonly why: string;
  readonly remedy: string;
  readonly ifNothing?: string;
}

/** What happens by default, by the directive. */
type Defaults = Readonly<Record<RetryDirective, string>>;

/** The errors of one section of docs/08. */
export type ErrorSection = Section;

/** Of the capture task: it reads on, starts again, or stands. */
export const CAPTURE_STANDS: Defaults = {
  retry:
    "Capture tries again by itself, with backoff. While it lasts PostgreSQL keeps WAL for the slot; nothing is lost before max_slot_wal_keep_size is reached, or without that bound the disk is full.",
  restart:
    "The task's host starts it again, and it goes on where it stood. While that repeats PostgreSQL keeps WAL for the slot.",
  stop: "Capture stays down (exit code 2). PostgreSQL keeps WAL for the slot: up to max_slot_wal_keep_size, beyond which the slot is lost, or without that bound until the disk is full.",
};

/** Of a consumer: its batch comes again, or its partition waits. */
export const CONSUMER_WAITS: Defaults = {
  retry:
    "The batch comes again by itself. Records wait in the stream until its retention is over; then they expire unread.",
  restart: "The function starts again by itself, and the batch comes again.",
  stop: "The change is tried as often as the consumer's definition says; then it is parked or becomes a dead letter (`poison`), or its partition waits. All else goes on.",
};

/** Of a command or a run on this machine. */
export const NOTHING_RUNS: Defaults = {
  retry: "It is tried again by itself.",
  restart: "It is started again by itself.",
  stop: "Nothing runs, and nothing else happens: the command has ended.",
};

/** Of a command that was refused. */
export const NOTHING_DONE = "Nothing changes: the command did nothing, and the pipeline goes on as it was.";

/** Of a change that holds its topic. */
export const TOPIC_HELD =
  "The topic stays held: its changes are stored in order in the claim bucket (10 GiB at most, about 90 days), and all other topics go on.";

/** Of one that does so only where there is a store. */
export const TOPIC_HELD_OR_STOP = `${TOPIC_HELD} Without a claim store capture stops here, and PostgreSQL keeps WAL.`;

/** Makes a section of docs/08 from what is written of each code. */
export function errorSection(
  title: string,
  defaults: Defaults,
  texts: Readonly<Record<string, ErrorText>>,
): ErrorSection {
  const page = pageOf("08-errors.md", title);
  const entries = Object.entries(texts).map(([code, { ifNothing, ...text }]): Entry => {
    const usual = text.retry === "retry or stop" ? defaults.stop : defaults[text.retry];
    return { ...text, code, kind: "error", ifNothing: ifNothing ?? usual, page };
  });
  return { title, entries };
}

/** The section of a page under this heading, as GitHub names its anchor. */
export function pageOf(file: string, heading: string): string {
  const anchor = heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N} _-]/gu, "")
    .replaceAll(" ", "-");
  return `docs/${file}#${anchor}`;
}
