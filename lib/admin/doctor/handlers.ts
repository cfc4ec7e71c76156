import type { ConsumerDefinition } from "../../definition/definition.ts";
import { type Check, NotChecked, ok, outcomeOf } from "./check.ts";
import { HandlerPatternError } from "./doctor-errors.ts";
import { type Examination, type LoadedHandler, needed } from "./examination.ts";
import { counted } from "./project.ts";

/** A handler waits for the turn of its process, and the process loads it. */
const HANDLER_MS = 60_000;

/** Each consumer's handler, and what handlers and definition name, held against the tables that are captured. */
export function handlerChecks(examination: Examination): readonly Check[] {
  const { pipeline } = examination;
  if (!pipeline)
    return ["handlers", "patterns"].map((name) => ({
      name,
      look: async () => {
        throw new NotChecked("needs a valid definition");
      },
    }));
  return [
    ...pipeline.consumers.map((consumer) => handlerCheck(consumer, examination)),
    ...pipeline.consumers.map((consumer) => patternCheck(consumer, examination)),
  ];
}

function handlerCheck(consumer: ConsumerDefinition, examination: Examination): Check {
  return {
    name: `handler ${consumer.name}`,
    deadlineMs: HANDLER_MS,
    async look() {
      const { registered } = await examination.handler(consumer);
      if (registered === undefined)
        return ok(`${consumer.entry} loads`, [
          "it does not say its name or its patterns: another library made it, or it is wrapped",
        ]);
      return ok(`${consumer.entry} loads: ${counted(registered.patterns?.length ?? 0, "pattern")}`);
    },
  };
}

function patternCheck(consumer: ConsumerDefinition, examination: Examination): Check {
  return {
    name: `patterns ${consumer.name}`,
    deadlineMs: HANDLER_MS,
    async look() {
      const pipeline = examination.requirePipeline();
      const { handlers } = examination.subject;
      if (!handlers) throw new NotChecked("the handlers' files are not in this place");
      const loaded: LoadedHandler = await needed(
        examination.handler(consumer),
        `needs its handler: see handler ${consumer.name}`,
      );
      const { tables } = await needed(
        examination.captured(),
        "needs to know which tables are captured: see database and preflight",
      );
      if (loaded.registered?.patterns === undefined)
        throw new NotChecked(
          "the handler does not say its patterns: another library made it, or it is wrapped",
        );
      const { unmatched, notes } = handlers.compare(pipeline, tables, new Map([[consumer.name, loaded]]));
      const errors = unmatched
        .filter((pattern) => pattern.consumer === consumer.name)
        .map(({ text }) => new HandlerPatternError(text));
      // Of tables that nobody takes the last consumer tells.
      const isLast = consumer.name === pipeline.consumers.at(-1)?.name;
      return outcomeOf(errors, `${loaded.registered.patterns.join(", ")}`, isLast ? notes : []);
    },
  };
}
