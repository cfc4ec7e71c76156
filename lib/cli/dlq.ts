import { Command, Option } from "commander";
import { ConfigurationError } from "../change/tributary-error.ts";
import { type DiscardOptions, discardOne, redrivePutAside } from "./dlq-discard.ts";
import { type ListOptions, listOpen } from "./dlq-list.ts";
import { type ChoiceOptions, showOne } from "./dlq-show.ts";
import { consumerOption, jsonOption, topicOption, withPlace } from "./options.ts";
import { type RedriveArguments, redriveCommand, redriveParked, withRedriver } from "./redrive.ts";

/** `tributary dlq`: what failed for good, of consumers and of capture: list, show, redrive, discard. */
export function dlqCommand(): Command {
  const list = withPlace(
    new Command("list").description("all open dead letters, of consumers and of capture"),
  )
    .addOption(consumerOption("only this one (default: all of the definition, and capture)"))
    .addOption(captureOption("only changes that capture put aside"))
    .addOption(jsonOption("a line for each dead letter"))
    .action((options: ListOptions) => listOpen(options));
  const show = withChoice(
    new Command("show").description(
      "a dead letter as a whole: change, error with stack, what waits behind it",
    ),
  )
    .addOption(jsonOption("a line for each dead letter"))
    .action((options: ChoiceOptions) => showOne(options));
  const discard = withRedriver(
    withChoice(
      new Command("discard").description("give one change up knowingly, and go on with those behind it"),
    ),
  )
    .option("--message <id>", "one message of the queue that names no change, as the list has it")
    .option("--yes", "do not ask")
    .addOption(jsonOption("a line for each report"))
    .action((options: DiscardOptions) => discardOne(options));
  return new Command("dlq")
    .description("dead letters of consumers and of capture: list, show, redrive, discard")
    .addCommand(list)
    .addCommand(show)
    .addCommand(redriveWithCapture())
    .addCommand(discard)
    .addHelpText(
      "after",
      `
A change that fails for good is a dead letter: with poison: "park" later changes of its key wait behind it. Correct the
handler, deploy it, and redrive; what can never take effect is discarded. A change that cannot become an event is a dead
letter of capture: its table is read again with a sweep.

Messages of a queue are read only to be shown again at once: for those seconds nobody else sees them. Exit code of list: 1
where something is open.

  tributary dlq list
  tributary dlq show --consumer orders --key 17
  tributary dlq redrive --consumer orders
  tributary dlq discard --consumer orders --position 000000010000000001E446180000000002`,
    );
}

/** `tributary redrive`, and beside it what can be done of capture's dead letters. */
function redriveWithCapture(): Command {
  const command = redriveCommand()
    .option("--all", "all keys of the consumer, as without a key")
    .addOption(
      captureOption(
        "of changes that capture put aside: see what their tables need, and take away what was read again",
      ),
    )
    .action(async (options: RedriveArguments & DiscardOptions & { readonly all?: boolean }) => {
      const { all, capture, consumer, ...rest } = options;
      if ((consumer === undefined) === !capture)
        refuse(
          "--consumer",
          consumer,
          "name a consumer, or give --capture for changes that capture put aside",
        );
      if (all && (rest.key ?? rest.topic ?? rest.position) !== undefined)
        refuse("--all", "true", "leave out --key, --topic and --position, or --all");
      if (capture) return redrivePutAside({ ...rest, capture });
      return redriveParked({ ...rest, consumer });
    });
  for (const option of command.options) if (option.long === "--consumer") option.mandatory = false;
  return command;
}

function withChoice(command: Command): Command {
  return withPlace(command)
    .addOption(consumerOption())
    .addOption(captureOption("a change that capture put aside (with --position)"))
    .option("--key <values>", "the key: 17, or 5,17 for two columns; '*' of a held partition")
    .option("--position <position>", "the position of a change: 34 characters, as the list has it")
    .addOption(topicOption("only this topic"));
}

function captureOption(what: string): Option {
  return new Option("--capture", what);
}

function refuse(path: string, value: string | undefined, remedy: string): never {
  throw new ConfigurationError("The command line", [{ path, value, remedy }]);
}
