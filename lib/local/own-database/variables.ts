/** Variables that tell the local definition which tables to capture: set by the host for itself and for the capture task. */

/** File of the user's definition; without it one is made of the tables. */
export const DEFINITION_VARIABLE = "TRIBUTARY_LOCAL_DEFINITION";
/** Tables, as patterns with commas between them. */
export const TABLES_VARIABLE = "TRIBUTARY_LOCAL_TABLES";
/** Tables left out, likewise. */
export const EXCLUDE_VARIABLE = "TRIBUTARY_LOCAL_EXCLUDE";
