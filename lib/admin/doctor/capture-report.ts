import { dynamodbClient } from "../../aws/clients.ts";
import { readCaptureReports, type StoredReport } from "../../state/capture-report.ts";
import { StateTableError, StateTableUnavailableError } from "../../state/state-errors.ts";
import { type Check, NotChecked, ok } from "./check.ts";
import { type Examination, needed } from "./examination.ts";

/** What the capture tasks last said of themselves: how a pipeline stands in full `tributary status` says. */
export function captureReportChecks(examination: Examination): readonly Check[] {
  return [
    {
      name: "capture task",
      async look(signal) {
        const { name: pipeline } = examination.requirePipeline();
        await needed(examination.table(), "needs the table: see state table");
        const dynamodb = dynamodbClient(examination.subject.environment);
        const table = examination.requireResources().stateTable;
        const reports = await readCaptureReports({ dynamodb, table, pipeline, signal })
          .catch((error: unknown) => {
            if (error instanceof StateTableError || error instanceof StateTableUnavailableError)
              throw new NotChecked(`dynamodb:Query: ${error.message}`);
            throw error;
          })
          .finally(() => dynamodb.destroy());
        const last = lastOfEachSlot(reports);
        if (last.length === 0) throw new NotChecked("no capture task has reported yet");
        const problems = last.flatMap(({ slot, report, failure }) =>
          report?.state === "FAILED" && failure
            ? [
                {
                  ...failure,
                  message: `the capture task${slot > 1 ? ` of slot ${slot}` : ""} ended: ${failure.message}`,
                },
              ]
            : [],
        );
        if (problems.length > 0)
          return {
            status: "problem",
            problems: problems.map(({ code, message, remedy }) => ({ code, message, remedy })),
          };
        return ok(
          last
            .map(({ report }) => `last said ${report?.state ?? "what this version cannot read"}`)
            .join(", "),
        );
      },
    },
  ];
}

/** A slot has several seats: the task that holds the lease counts, or the latest where none has held it. */
function lastOfEachSlot(reports: readonly StoredReport[]): readonly StoredReport[] {
  const slots = [...new Set(reports.map(({ slot }) => slot))].toSorted((a, b) => a - b);
  return slots.flatMap((slot) => {
    const own = reports.filter((report) => report.slot === slot);
    const latest = own.toSorted((a, b) => (b.report?.at ?? 0) - (a.report?.at ?? 0))[0];
    const last = own.find(({ seat }) => seat === "holder") ?? latest;
    return last ? [last] : [];
  });
}
