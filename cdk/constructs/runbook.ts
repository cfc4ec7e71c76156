import { Token } from "aws-cdk-lib";
import { ConfigurationError } from "../../lib/change/tributary-error.ts";
import { alarmAnchor } from "../../lib/telemetry/alarms.ts";

/*
 * Links from alarms and the dashboard to a team's own copy of docs/11-operations.md (the prop `runbook`).
 */

/** https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html: characters of a description. */
const MAX_DESCRIPTION = 1024;

/**
 * Returns the address of a runbook's page as it was given.
 * @throws ConfigurationError where an alarm's anchor could not follow it, or a link in Markdown could not hold it.
 */
export function runbookAddress(given: string | undefined): string | undefined {
  if (given === undefined || Token.isUnresolved(given)) return given;
  const url = URL.parse(given);
  const isWeb = url !== null && /^https?:$/.test(url.protocol) && url.username === "" && url.password === "";
  if (isWeb && /^[^\s#()<>[\]"'`\\]+$/.test(given)) return given;
  throw refusal(
    given,
    "write the address of your copy of the page 11-operations.md, https://…, without a part behind #, credentials, brackets, quotes and spaces (a bracket is %28 or %29)",
  );
}

/** Returns the address of an alarm's entry. */
export function entryOf(runbook: string, kind: string): string {
  return `${runbook}#${alarmAnchor(kind)}`;
}

/** @throws ConfigurationError where CloudWatch would not take an alarm's description with an address so long. */
export function checkDescription(description: string, name: string, runbook: string | undefined): void {
  if (runbook === undefined || description.length <= MAX_DESCRIPTION) return;
  throw refusal(
    runbook,
    `the description of alarm ${name} would have ${description.length} characters, and CloudWatch takes ${MAX_DESCRIPTION}: write a shorter address`,
  );
}

function refusal(value: string, remedy: string): ConfigurationError {
  return new ConfigurationError("CdcPipeline", [{ path: "runbook", value, remedy }]);
}
