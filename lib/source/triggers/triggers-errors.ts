import { TributaryError } from "../../change/tributary-error.ts";

/** The server did not let triggers be installed or removed. Nothing was changed. */
export class TriggersRefusedError extends TributaryError {
  readonly code = "TRIGGERS_REFUSED";
  readonly retry = "stop";
}
