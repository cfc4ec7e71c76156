import type { Duration } from "aws-cdk-lib";

/** Settings of a redrive that no person starts. */
export interface AutomaticRedriveSettings {
  /** Make a redrive queue. Each dead letter moved into it is redriven, that letter's key only. */
  readonly queue?: boolean;
  /** Redrive all open dead letters at this interval, for failures that pass by themselves. */
  readonly every?: Duration;
}
