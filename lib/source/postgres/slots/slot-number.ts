import { ConfigurationError } from "../../../change/tributary-error.ts";

/** Says which of the pipeline's slots a capture task reads: 1 up to `source.slots`; left out, 1. */
export const SLOT_VARIABLE = "TRIBUTARY_SLOT";

/** Reads the number in `TRIBUTARY_SLOT`, of so many. @throws ConfigurationError for a slot that the definition does not have. */
export function slotFromEnvironment(
  environment: Readonly<Record<string, string | undefined>>,
  slots: number,
): number {
  const value = environment[SLOT_VARIABLE];
  if (value === undefined) return 1;
  const number = Number(value);
  if (/^[1-9]\d?$/.test(value) && number <= slots) return number;
  const remedy =
    slots === 1
      ? "leave it out: the pipeline has one slot (source.slots)"
      : `write a number from 1 to ${slots} (source.slots)`;
  throw new ConfigurationError("The capture task's environment", [{ path: SLOT_VARIABLE, value, remedy }]);
}
