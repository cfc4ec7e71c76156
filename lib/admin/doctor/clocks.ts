import { type Check, NotChecked, type Outcome, outcomeOf } from "./check.ts";
import { ClockSkewError } from "./doctor-errors.ts";
import { type Examination, needed } from "./examination.ts";

/** Clocks further apart than this are a problem, in milliseconds: far less than what AWS's signatures bear. */
const MOST_MS = 30_000;

/** This machine's clock, held against the database's and AWS's. */
export function clockChecks(examination: Examination): readonly Check[] {
  return [
    {
      name: "clock of the database",
      deadlineMs: 25_000,
      async look() {
        const { skewMs } = await needed(
          examination.session(),
          "needs a session with the database: see database",
        );
        return judge("the clock of the database server", skewMs);
      },
    },
    {
      name: "clock of AWS",
      async look() {
        const { skewMs } = await needed(examination.caller(), "needs an answer of AWS: see AWS identity");
        if (skewMs === undefined) throw new NotChecked("AWS's answer has no date");
        return judge("AWS's clock", skewMs);
      },
    },
  ];
}

function judge(whose: string, skewMs: number): Outcome {
  const errors = Math.abs(skewMs) > MOST_MS ? [new ClockSkewError(whose, skewMs)] : [];
  return outcomeOf(errors, `${(Math.abs(skewMs) / 1000).toFixed(1)} s from ours`);
}
