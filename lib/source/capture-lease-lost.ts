import { defineError } from "../change/tributary-error.ts";

/** Another capture task took the lease over: this one must stop writing at once. */
export class CaptureLeaseLostError extends defineError("CAPTURE_LEASE_LOST", "restart").from(
  (pipeline: string, generation: number) => ({
    message: `the capture lease of pipeline "${pipeline}" (generation ${generation}) was taken over by another capture task`,
    remedy:
      "Nothing to do when a deployment is under way. Otherwise look for a second capture task of this pipeline and stop one.",
  }),
) {}
