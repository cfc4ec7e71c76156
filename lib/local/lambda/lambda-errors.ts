import { defineError } from "../../change/tributary-error.ts";

/** The handler file is missing, does not export the handler, or throws while it loads. Found before anything is invoked. */
export class FunctionEntryError extends defineError("FUNCTION_ENTRY", "stop") {}

/** Loading the handler file took longer than it may. */
export class FunctionInitTimeoutError extends FunctionEntryError {}
