import type { PlannedChange } from "./pipeline-plan.ts";

/**
 * Returns a warning for the operator if a plan both removes and adds consumers. A renamed consumer is a new one: nobody applies what the
 * old one had not applied yet.
 */
export function renamedConsumers(changes: readonly PlannedChange[]): readonly string[] {
  const names = (action: "add" | "remove") =>
    changes.flatMap((change) =>
      change.what === "consumer" && change.action === action ? [change.name] : [],
    );
  const [gone, made] = [names("remove"), names("add")];
  if (gone.length === 0 || made.length === 0) return [];
  return [
    `${gone.join(", ")} goes while ${made.join(", ")} comes. If that is a new name: it is a new consumer, which begins where capture stands, and what the old one has not applied, parked or got as dead letters is given to nobody. Deploy the new name beside the old one first, fill it (tributary backfill start --table <table> --consumer ${made[0]}), and take the old one out when tributary consumer status --consumer ${gone[0]} shows nothing that waits.`,
  ];
}
