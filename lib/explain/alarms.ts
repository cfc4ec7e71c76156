import {
  type Alarm,
  CAPTURE_ALARM,
  CONSUMER_ALARM,
  PIPELINE_ALARM,
  PIPELINE_COMPOSITE,
  SOURCE_ALARM,
  THRESHOLD,
} from "../telemetry/alarms.ts";
import { type Entry, pageOf, type Section } from "./entry.ts";

/** The alarms of a deployed pipeline, which docs/11 lists. */
export const ALARMS: Section = {
  title: "Alarms",
  entries: Object.entries<Explained>({
    ...SOURCE_ALARM.slots,
    ...SOURCE_ALARM.tables,
    ...CAPTURE_ALARM,
    ...PIPELINE_ALARM,
    ...CONSUMER_ALARM,
    ...PIPELINE_COMPOSITE,
  }).map(([code, alarm]): Entry => {
    const filled = (text: string) =>
      text.replaceAll("{threshold}", thresholdOf(alarm)).replaceAll("{consumer}", "<consumer>");
    return {
      code,
      kind: "alarm",
      meaning: filled(alarm.meaning),
      remedy: filled(alarm.remedy),
      ifNothing: filled(alarm.ifNothing),
      page: pageOf("11-operations.md", "Alarms"),
    };
  }),
};

/** The explained fields of an alarm; a composite one has no threshold. */
type Explained = Pick<Alarm, "meaning" | "remedy" | "ifNothing"> & Partial<Pick<Alarm, "threshold">>;

function thresholdOf({ threshold = 1 }: Explained): string {
  return typeof threshold === "number" ? String(threshold) : THRESHOLD[threshold].text;
}
