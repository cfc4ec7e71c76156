import type { Context, KinesisStreamBatchResponse, KinesisStreamEvent } from "aws-lambda";
import pg from "pg";
import { MischiefMaker } from "../mischief.ts";
import { MISCHIEF_VARIABLE, SINK_URL_VARIABLE } from "../sink-store.ts";

/** The part of a change event that an effect is made of. */
export interface Happened {
  readonly topic: string;
  readonly partition: number;
  readonly position: string;
}

type Handler = (event: KinesisStreamEvent, context: Context) => Promise<KinesisStreamBatchResponse>;

/** State that the checker's handlers share: the database of the effects, the invocation, the mischief. */
export class SinkSession {
  readonly pool = new pg.Pool({ connectionString: process.env[SINK_URL_VARIABLE], max: 4 });
  readonly mischief = new MischiefMaker(process.env[MISCHIEF_VARIABLE]);
  readonly #consumer: string;
  #invocation = "";

  constructor(consumer: string) {
    this.#consumer = consumer;
    this.pool.on("error", () => {});
  }

  /** A process has one invocation at a time. */
  get invocation(): string {
    return this.#invocation;
  }

  /** The handler, with each invocation's beginning and end on record. */
  recorded(handler: Handler): Handler {
    return async (event, context) => {
      this.mischief.look();
      this.#invocation = context.awsRequestId;
      const insert = "INSERT INTO invocations (id, consumer, pid) VALUES ($1, $2, $3)";
      await this.pool.query(insert, [context.awsRequestId, this.#consumer, process.pid]);
      const response = await handler(event, context);
      // A redrive's report has no failed items: it ended.
      if (!response.batchItemFailures?.length) {
        await this.pool.query("UPDATE invocations SET ended = clock_timestamp() WHERE id = $1", [
          context.awsRequestId,
        ]);
      }
      return response;
    };
  }

  /** One effect, in the order of the calls. */
  async append({ topic, partition, position }: Happened): Promise<void> {
    await this.mischief.meet("before");
    await this.pool.query({
      name: "append",
      text: "INSERT INTO effects (consumer, topic, partition, position, invocation, visible) VALUES ($1, $2, $3, $4, $5, true)",
      values: [this.#consumer, topic, partition, position, this.#invocation],
    });
    await this.mischief.meet("after");
  }
}
