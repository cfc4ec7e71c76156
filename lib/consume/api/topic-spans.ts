import type { PositionText } from "../../change/position.ts";
import { fittingJson, listOf, mapOf, objectOf, optional, text, wholeFrom } from "../../change/shape.ts";
import { topicPattern } from "../../definition/topic-pattern.ts";

/*
 * The topics that a consumer had, and when. Each time that capture starts with other topics than before, a revision begins; a span
 * tells from which revision on the consumer had a topic pattern, and which revision it had it no more in. Revisions, not
 * positions, say whether two spans follow each other: nothing may have been confirmed between two deploys, and still a
 * function without the topic may have passed records.
 */

/** A time in which a consumer had a topic pattern. */
export interface TopicSpan {
  /** The revision it begins with, and the position confirmed then. */
  readonly since: number;
  readonly position: PositionText;
  /** The first revision without the pattern; undefined: it has it now. */
  readonly until?: number | undefined;
}

/** The spans of each pattern that a consumer has or had, in order. */
export type TopicSpans = Readonly<Record<string, readonly TopicSpan[]>>;

/** Spans kept of a pattern. Older ones become one, as if it had never been given up between: a gap then stays a gap. */
const KEPT = 8;

const stored = mapOf(
  listOf(objectOf({ since: wholeFrom(0), position: text, until: optional(wholeFrom(0)) })),
);

/** Reads what `formatSpans` wrote; otherwise throws what `refuse` makes of a fault. */
export function parseSpans(
  json: string | undefined,
  refuse: (path: string, problem: string) => Error,
): TopicSpans {
  return json === undefined ? {} : fittingJson(stored, json, refuse);
}

/** The spans as they are stored. */
export function formatSpans(spans: TopicSpans): string {
  return JSON.stringify(spans);
}

/** The spans once the consumer has these patterns, from `revision` and `position` on; undefined where it has them already. */
export function changeTopics(
  spans: TopicSpans,
  topics: readonly string[],
  revision: number,
  position: PositionText,
): TopicSpans | undefined {
  const owned = Object.keys(spans).filter((pattern) => spans[pattern]?.some(isOpen));
  const taken = topics.filter((pattern) => !owned.includes(pattern));
  const givenUp = owned.filter((pattern) => !topics.includes(pattern));
  if (taken.length === 0 && givenUp.length === 0) return undefined;
  const changed: Record<string, readonly TopicSpan[]> = { ...spans };
  for (const pattern of taken)
    changed[pattern] = bounded([...(spans[pattern] ?? []), { since: revision, position }]);
  for (const pattern of givenUp) {
    changed[pattern] = (spans[pattern] ?? []).map((span) =>
      isOpen(span) ? { ...span, until: revision } : span,
    );
  }
  return changed;
}

/**
 * Returns where a consumer that has a topic now began with it for the last time: whatever it is missing before that, another
 * deploy of it gave up. Undefined where it does not have the topic.
 */
export function lastStart(spans: TopicSpans, topic: string): PositionText | undefined {
  const all = Object.entries(spans).flatMap(([pattern, list]) => (topicPattern(pattern)(topic) ? list : []));
  let first = all.filter(isOpen).sort((a, b) => a.since - b.since)[0];
  for (;;) {
    const since = first?.since ?? 0;
    // One pattern may have taken the place of another, from one revision to the next.
    const earlier = all.find((span) => span.since < since && span.until !== undefined && span.until >= since);
    if (!earlier) return first?.position;
    first = earlier;
  }
}

function isOpen({ until }: TopicSpan): boolean {
  return until === undefined;
}

function bounded(spans: readonly TopicSpan[]): readonly TopicSpan[] {
  const [first, second, ...rest] = spans;
  if (spans.length <= KEPT || !first || !second) return spans;
  return [{ ...first, until: second.until }, ...rest];
}
