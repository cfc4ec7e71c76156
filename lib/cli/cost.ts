import { Command, InvalidArgumentError, Option } from "commander";
import { ASSUMPTIONS } from "../cost/assumptions.ts";
import { type Bill, PRICES, unconfirmed } from "../cost/bill.ts";
import { type Estimate, estimate } from "../cost/estimate.ts";
import { DEFAULT_LOAD, type Load } from "../cost/load.ts";
import { jsonOption } from "./options.ts";

type CostOptions = Omit<Load, "memoryMB" | "captureMemoryGB"> & {
  readonly memoryMb: number;
  readonly captureMemoryGb: number;
  readonly json?: boolean;
};

/** `tributary cost`: what a load costs in a month, and what else would. */
export function costCommand(): Command {
  const number = (flags: string, what: string, least: number, preset?: number) => {
    const option = new Option(flags, what).argParser(atLeast(least));
    return preset === undefined ? option.makeOptionMandatory() : option.default(preset);
  };
  const preset = DEFAULT_LOAD;
  return new Command("cost")
    .description("estimate what a load costs in a month, by part, next to DMS and MSK")
    .addOption(number("--changes-per-second <n>", "average over the month", 0.001))
    .addOption(number("--bytes <n>", "of a change event's JSON, on average", 1))
    .addOption(number("--consumers <n>", "that take every change", 0, preset.consumers))
    .addOption(number("--fan-out <n>", "of the consumers, with enhanced fan-out", 0, preset.fanOut))
    .addOption(number("--tables <n>", "captured", 1, preset.tables))
    .addOption(number("--partitions <n>", "of each topic", 1, preset.partitions))
    .addOption(number("--handler-ms <n>", "time of a handler for each change", 0, preset.handlerMs))
    .addOption(number("--memory-mb <n>", "of a consumer's function", 128, preset.memoryMB))
    .addOption(number("--batch-size <n>", "records in an invocation at most", 1, preset.batchSize))
    .addOption(
      number("--batch-window-seconds <n>", "how long one waits for more", 0, preset.batchWindowSeconds),
    )
    .addOption(number("--retention-hours <n>", "of the stream", 24, preset.retentionHours))
    .addOption(number("--peak <n>", "peak load by average load", 1, preset.peak))
    .addOption(number("--capture-vcpu <n>", "of all capture tasks", 0.25, preset.captureVcpu))
    .addOption(number("--capture-memory-gb <n>", "of all capture tasks", 0.5, preset.captureMemoryGB))
    .addOption(
      new Option("--packing <how>", "many changes a record, or one")
        .choices(["batch", "none"])
        .default(preset.packing),
    )
    .addOption(
      new Option("--network <way>", "the capture task's way to AWS from its subnet")
        .choices(["endpoints", "nat", "none"])
        .default(preset.network),
    )
    .addOption(jsonOption("one object, with prices and assumptions"))
    .action(({ json, memoryMb, captureMemoryGb, ...rest }: CostOptions, command: Command) => {
      if (rest.fanOut > rest.consumers)
        command.error(`error: --fan-out ${rest.fanOut}: write at most the ${rest.consumers} of --consumers`, {
          exitCode: 2,
        });
      const result = estimate({ ...rest, memoryMB: memoryMb, captureMemoryGB: captureMemoryGb });
      const { region, date, currency, basis } = PRICES;
      const text = json
        ? JSON.stringify({ ...result, prices: PRICES, assumptions: ASSUMPTIONS }, undefined, 2)
        : [
            ...describe(result),
            "",
            `Prices: ${region}, ${date}, ${currency}. ${basis}`,
            `Not from AWS's price list, but from articles and quotations: ${unconfirmed().join(", ")}. Sources: lib/cost/prices.json.`,
          ].join("\n");
      process.stdout.write(`${text}\n`);
    });
}

function describe({ load, stream, shards, bills }: Estimate): string[] {
  const { changesPerSecond, bytes, consumers } = load;
  return [
    `${changesPerSecond} changes/s of ${bytes} bytes, ${consumers} consumers: US dollars a month`,
    ...bills.flatMap((one) => ["", ...table(one)]),
    "",
    "Assumed:",
    `  ${(changesPerSecond / stream.recordsPerSecond).toFixed(1)} changes share a record (those of one partition within ${ASSUMPTIONS.packingMs} ms); bursts share better.`,
    `  Every consumer takes every change, ${load.handlerMs} ms each; ${shards.onDemand} shards on demand, ${shards.provisioned} provisioned for a peak of ${load.peak} times the average.`,
    `  Of a million changes ${ASSUMPTIONS.deadLettersPerMillion} become dead letters, and ${ASSUMPTIONS.oversizePerMillion} are too large for the stream.`,
    "  Larger batches (--batch-size, --batch-window-seconds) make invocations, fence writes and logs fewer; a window makes changes later.",
    `  DMS on one ${PRICES.dms.instance} whatever the load, MSK on ${ASSUMPTIONS.mskBrokers} ${PRICES.msk.broker} with a Debezium connector; both with the same functions, no fence, no metrics of their own.`,
    `  Not counted: the database itself, the sinks, your work. Logs are kept for ${ASSUMPTIONS.logRetentionDays} days.`,
    `  The task is in the database's zone in one of ${ASSUMPTIONS.zones} cases. On-demand Advantage is a choice of the whole account, which pays for ${ASSUMPTIONS.advantageMiBps} MiB/s at least.`,
  ];
}

function table({ name, usd, parts, lines }: Bill): string[] {
  return [
    `${name.padEnd(34)} ${money(usd)}`,
    ...parts.flatMap(({ part, usd: ofPart }) => [
      `  ${part.padEnd(32)} ${money(ofPart)}`,
      ...lines
        .filter((one) => one.part === part)
        .map(({ what, quantity, unitPrice }) => `      ${amount(quantity)} ${what} at ${unitPrice}`),
    ]),
  ];
}

function money(usd: number): string {
  return usd.toFixed(2).padStart(10);
}

function amount(quantity: number): string {
  return quantity >= 100 ? Math.round(quantity).toLocaleString("en-US") : String(+quantity.toPrecision(3));
}

function atLeast(least: number) {
  return (text: string): number => {
    const value = Number(text);
    if (text.trim() === "" || !Number.isFinite(value) || value < least)
      throw new InvalidArgumentError(`write a number from ${least} up`);
    return value;
  };
}
