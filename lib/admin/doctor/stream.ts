import type { TributaryError } from "../../change/tributary-error.ts";
import { isEmulated } from "./aws-caller.ts";
import { type Check, outcomeOf } from "./check.ts";
import { StreamSettingsError } from "./doctor-errors.ts";
import type { Examination } from "./examination.ts";
import { counted } from "./project.ts";

/** Streams that work. */
const WORKING = ["ACTIVE", "UPDATING"];
/** The longest that the emulator keeps records. */
const EMULATED_HOURS = 168;

/** The Kinesis stream. */
export function streamChecks(examination: Examination): readonly Check[] {
  return [
    {
      name: "stream",
      async look() {
        const emulated = isEmulated(examination.subject.environment);
        const found = await examination.stream();
        const {
          StreamName: name = "",
          StreamStatus: status = "unknown",
          RetentionPeriodHours: hours = 0,
        } = found;
        const errors: TributaryError[] = [];
        const notes: string[] = [];
        if (!WORKING.includes(status))
          errors.push(
            new StreamSettingsError({
              message: `the stream ${name} is ${status}`,
              remedy: "Wait until it is ACTIVE; one that is being deleted comes again by cdk deploy.",
            }),
          );
        const wanted = examination.pipeline?.stream;
        if (wanted) {
          const retention = emulated
            ? Math.min(wanted.retentionHours, EMULATED_HOURS)
            : wanted.retentionHours;
          if (hours < retention)
            errors.push(
              new StreamSettingsError({
                message: `the stream ${name} keeps records for ${hours} hours, and the definition says ${retention} (stream.retentionHours): a consumer that stands still loses changes sooner than its alarms say`,
                remedy: `Deploy the stack again, or: aws kinesis increase-stream-retention-period --stream-name ${name} --retention-period-hours ${retention}`,
              }),
            );
          if (hours > retention)
            notes.push(`it keeps records for ${hours} hours, longer than the definition says (${retention})`);
          const { MaxRecordSizeInKiB: largest } = found;
          if (largest !== undefined && largest * 1024 < wanted.maxRecordBytes)
            errors.push(
              new StreamSettingsError({
                message: `the stream ${name} takes records of ${largest} KiB, and the definition writes some of ${wanted.maxRecordBytes / 1024} KiB (stream.maxRecordBytes)`,
                remedy: "Deploy the stack again, or set stream.maxRecordBytes to what the stream takes.",
              }),
            );
          if (wanted.shards !== undefined && found.OpenShardCount !== wanted.shards && !emulated)
            notes.push(`the definition says ${counted(wanted.shards, "shard")}`);
        }
        if (found.EncryptionType !== "KMS" && !emulated)
          notes.push("its records are not encrypted at rest; the construct's stream has a KMS key");
        const mode = found.StreamModeDetails?.StreamMode?.toLowerCase().replace("_", "-");
        const encryption = found.EncryptionType === "KMS" ? ", encrypted" : "";
        return outcomeOf(
          errors,
          `${name}: ${status.toLowerCase()}, ${counted(found.OpenShardCount ?? 0, "shard")}${mode ? ` (${mode})` : ""}, keeps ${hours} hours${encryption}`,
          notes,
        );
      },
    },
  ];
}
