/** A valid name of a pipeline or a consumer: the names of its slot, stack and functions are made of it. */
export const PIPELINE_NAME = /^[a-z][a-z0-9-]{0,39}$/;
/** The same for people. */
export const PIPELINE_NAME_RULE =
  "write a name of lower-case letters, digits and hyphens, at most 40, starting with a letter";
