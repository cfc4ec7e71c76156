/** Prefix of all slots and publications that `tributary dev` makes, whoever's. */
export const DEV_PREFIX = "tributary_dev_";

/** Longest name that PostgreSQL keeps, less what the names of further slots end in (`_slot16`). */
const LONGEST = 63 - "_slot16".length;

/** Name of slot and publication of a pipeline in development: `tributary_dev_<pipeline>_<id>`, letters, digits and underscores. */
export function devSlotName(pipeline: string, id: string): string {
  const room = LONGEST - DEV_PREFIX.length - id.length - 1;
  const name = pipeline
    .toLowerCase()
    .replaceAll(/[^a-z0-9_]/g, "_")
    .slice(0, room);
  return `${DEV_PREFIX}${name}_${id}`;
}
