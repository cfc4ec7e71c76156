/**
 * The command that begins history anew, as remedies name it: shows what it would do, and how to confirm it. It finds the
 * definition as every command does (find-definition.ts). See docs, PostgreSQL, "A new epoch".
 */
export const NEW_EPOCH = "tributary epoch new";

/** The same where the old slot stands in the way and must go. */
export const NEW_EPOCH_DROP_SLOT = `${NEW_EPOCH} --drop-slot`;
