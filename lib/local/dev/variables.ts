/** Variables that tell `pipeline.ts` what `tributary dev` makes of a definition: set by the host for itself, for the capture task, and for the verbs. */

/** File of the user's definition. */
export const DEFINITION_VARIABLE = "TRIBUTARY_DEV_DEFINITION";
/** Name of slot and publication. */
export const NAME_VARIABLE = "TRIBUTARY_DEV_NAME";
/** `1`: existing rows are read. */
export const SNAPSHOT_VARIABLE = "TRIBUTARY_DEV_SNAPSHOT";
/** `1`: WAL without a bound is accepted. */
export const UNBOUNDED_VARIABLE = "TRIBUTARY_DEV_UNBOUNDED_WAL";
