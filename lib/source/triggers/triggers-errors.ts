import { defineError } from "../../change/tributary-error.ts";

/** The server did not let triggers be installed or removed. Nothing was changed. */
export class TriggersRefusedError extends defineError("TRIGGERS_REFUSED", "stop") {}
