import {
  DeleteItemCommand,
  type DynamoDBClient,
  PutItemCommand,
  QueryCommand,
  UpdateItemCommand,
} from "@aws-sdk/client-dynamodb";
import { MemoryTable as PlainTable } from "../../../lib/testing/handler/memory-table.ts";
import { collectRefusals } from "../../refusals.ts";

export { updated } from "../../../lib/testing/handler/table-expressions.ts";

/** What AWS would have refused of all tables of a test file. */
const refusals = collectRefusals();

/**
 * What happens to one call: `lost` is carried out, but no answer comes; `late` is carried out after its sender gave up
 * waiting for an answer, whenever that is; `twice` is answered, and carried out once more at some later time.
 */
export type CallFault = "none" | "throttled" | "lost" | "late" | "twice";

/** The testing kit's state table, so that every step of several processes can be put in any order. A call that DynamoDB refuses fails the test. */
export class MemoryTable extends PlainTable {
  /** Updates that changed something when they were carried out for the second time. */
  readonly repeated: string[] = [];

  constructor() {
    super((refusal) => refusals.note(refusal));
  }

  /**
   * A client for one process. `step` is awaited before and after each call, and says what becomes of it; `arrival` before
   * one that was under way for long arrives.
   */
  override client(
    step: (when: "before" | "after", what: string, command: unknown) => Promise<CallFault> = async () =>
      "none",
    arrival: () => Promise<void> = async () => {},
  ): DynamoDBClient {
    const send = async (command: unknown) => {
      const what = describe(command);
      const fault = await step("before", what, command);
      if (fault === "throttled") throw named("ThrottlingException");
      if (fault === "late") {
        void arrival().then(() => this.carryOut(command));
        throw named("TimeoutError");
      }
      const result = this.carryOut(command);
      if (fault === "twice") void arrival().then(() => this.#repeat(command));
      await step("after", what, command);
      if (fault === "lost") throw named("TimeoutError");
      if (result instanceof Error) throw result;
      return result;
    };
    return { send } as unknown as DynamoDBClient;
  }

  #repeat(command: unknown): void {
    if (!(command instanceof UpdateItemCommand)) return void this.carryOut(command);
    const look = () => JSON.stringify(Object.entries(this.itemAt(command.input.Key) ?? {}).sort());
    const before = look();
    this.carryOut(command);
    if (look() !== before) this.repeated.push(`${command.input.Key?.sk?.S}: ${describe(command)}`);
  }
}

function describe(command: unknown): string {
  if (command instanceof UpdateItemCommand) return String(command.input.UpdateExpression);
  if (command instanceof PutItemCommand) return `put ${command.input.Item?.sk?.S}`;
  if (command instanceof DeleteItemCommand) return `delete ${command.input.Key?.sk?.S}`;
  return command instanceof QueryCommand ? "query" : "get";
}

function named(name: string): Error {
  return Object.assign(new Error(name), { name });
}
