import { editDistance } from "../definition/edit-distance.ts";

/** Of a text so long, so many letters may be wrong. */
const SHARE = 4;
const MOST = 3;

/** Returns the candidate that a text was probably meant to be, if one is near enough. */
export function suggestion(text: string, candidates: Iterable<string>): string | undefined {
  let best: string | undefined;
  let least = Math.min(MOST, Math.max(1, Math.floor(text.length / SHARE)));
  for (const candidate of candidates) {
    if (Math.abs(candidate.length - text.length) > least) continue;
    const distance = editDistance(text.toLowerCase(), candidate.toLowerCase());
    if (distance > least || (distance === least && best !== undefined)) continue;
    best = candidate;
    least = distance;
  }
  return best;
}
