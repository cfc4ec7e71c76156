import { TributaryError } from "../errors.ts";

/** Another capture task took the lease over: this one must stop writing at once. */
export class CaptureLeaseLostError extends TributaryError {
  readonly code = "CAPTURE_LEASE_LOST";
  readonly retry = "restart";

  constructor(pipeline: string, generation: number) {
    super({
      message: `the capture lease of pipeline "${pipeline}" (generation ${generation}) was taken over by another capture task`,
      remedy:
        "Nothing to do when a deployment is under way. Otherwise look for a second capture task of this pipeline and stop one.",
    });
  }
}

/** The lease stayed with another capture task until our deadline. */
export class CaptureLeaseHeldError extends TributaryError {
  readonly code = "CAPTURE_LEASE_HELD";
  readonly retry = "restart";

  constructor(pipeline: string, owner: string, waitedMs: number) {
    super({
      message: `another capture task ("${owner}") holds the lease of pipeline "${pipeline}" and renewed it during ${Math.round(waitedMs / 1000)} s`,
      remedy: "Stop the other capture task; this one takes over within seconds after it has ended.",
    });
  }
}

/** A setting that decides where keys go differs from the one the pipeline started with (rule 2). */
export class StoredSettingChangedError extends TributaryError {
  readonly code = "STORED_SETTING_CHANGED";
  readonly retry = "stop";

  constructor(pipeline: string, changes: readonly { setting: string; stored: string; now: string }[]) {
    const lines = changes.map((c) => `  ${c.setting}: was ${c.stored}, is now ${c.now}`);
    super({
      message: `pipeline "${pipeline}" was started with other settings, and changing them would move keys between partitions and lose their order:\n${lines.join("\n")}`,
      remedy:
        "Put the settings back. To change them, start a pipeline of another name beside this one, let its consumers catch up, then remove this one.",
    });
  }
}

/** The state table does not exist or has not the keys it must have. */
export class StateTableError extends TributaryError {
  readonly code = "STATE_TABLE";
  readonly retry = "stop";
}
