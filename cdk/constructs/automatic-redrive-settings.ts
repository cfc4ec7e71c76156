import type { Duration } from "aws-cdk-lib";

/** Settings of a redrive that no person starts. */
export interface AutomaticRedriveSettings {
  /** A queue: each dead letter that is moved into it is redriven, its key alone. */
  readonly queue?: boolean;
  /** All open dead letters, so often: for failures that pass by themselves. */
  readonly every?: Duration;
}
