import { Annotations, Duration } from "aws-cdk-lib";
import type * as iam from "aws-cdk-lib/aws-iam";
import type * as kinesis from "aws-cdk-lib/aws-kinesis";
import type * as kms from "aws-cdk-lib/aws-kms";
import * as lambda from "aws-cdk-lib/aws-lambda";
import { Construct } from "constructs";
import { topicFilters } from "../../lib/consume/api/topic-filters.ts";
import { AutomaticRedrive } from "./automatic-redrive.ts";
import type { ChangeStream } from "./change-stream.ts";
import { ConsumerFunction, type ConsumerFunctionProps, logSettings } from "./consumer-function.ts";
import { DeadLetterQueue } from "./dead-letter-queue.ts";
import { Redrive } from "./redrive.ts";

/** Props of `Consumer`. */
export interface ConsumerProps
  extends Omit<ConsumerFunctionProps, "timeout" | "description" | "deadLetterQueue" | "redrives"> {
  readonly changeStream: ChangeStream;
  readonly encryptionKey: kms.IKey;
}

/**
 * One consumer of the definition: its function, the event source mapping that feeds it, its dead-letter queue and its
 * redrive function.
 */
export class Consumer extends Construct {
  readonly name: string;
  readonly function: lambda.Function;
  /** Variables of the function. */
  readonly environment: Readonly<Record<string, string>>;
  readonly deadLetterQueue: DeadLetterQueue;
  readonly redrive: Redrive;
  readonly automaticRedrive: AutomaticRedrive | undefined;
  readonly mapping: lambda.EventSourceMapping;
  readonly fanOut: kinesis.StreamConsumer | undefined;

  constructor(scope: Construct, id: string, props: ConsumerProps) {
    super(scope, id);
    const { definition, consumer, settings, changeStream } = props;
    this.name = consumer.name;
    this.deadLetterQueue = new DeadLetterQueue(this, "DeadLetters", props);
    const parts = { ...props, deadLetterQueue: this.deadLetterQueue };
    const { function: handler, environment } = new ConsumerFunction(this, "Handler", {
      ...parts,
      timeout: Duration.seconds(consumer.timeoutSeconds),
      description: `Tributary: consumer ${consumer.name} of ${definition.name}`,
    });
    this.function = handler;
    this.environment = environment;
    this.redrive = new Redrive(this, "Redrive", parts);
    this.automaticRedrive =
      settings.redrive?.queue || settings.redrive?.every
        ? new AutomaticRedrive(this, "AutomaticRedrive", {
            ...parts,
            ...logSettings(props),
            consumer: consumer.name,
            settings: settings.redrive,
            redrive: this.redrive,
          })
        : undefined;

    if (settings.enhancedFanOut) this.#sayWhatFanOutReads(definition.stream.retentionHours);
    this.fanOut = settings.enhancedFanOut ? changeStream.addFanOut(this, "FanOut", consumer.name) : undefined;
    const filters = topicFilters(consumer.topics, definition.stream.packing);
    if (!filters) {
      Annotations.of(this).addInfoV2(
        "tributary:unfiltered",
        `The consumer ${consumer.name} is invoked for every record and passes over what is not its own: its topics cannot be said as a filter.`,
      );
    }
    this.mapping = new lambda.EventSourceMapping(this, "Mapping", {
      target: handler,
      eventSourceArn: this.fanOut?.streamConsumerArn ?? changeStream.stream.streamArn,
      startingPosition: lambda.StartingPosition.TRIM_HORIZON,
      batchSize: consumer.batchSize,
      maxBatchingWindow: Duration.seconds(consumer.batchWindowSeconds),
      parallelizationFactor: consumer.parallelization,
      reportBatchItemFailures: true,
      // A batch that is too much for the function (time, memory) comes again in halves; nothing is given up by it.
      bisectBatchOnError: true,
      retryAttempts: -1,
      onFailure: props.claimBucket.asOnFailureDestination(),
      supportS3OnFailureDestination: true,
      // What the alarm Unread needs: a mapping publishes nothing of the kind unless it is asked to.
      metricsConfig: { metrics: [lambda.MetricType.EVENT_COUNT] },
      ...(filters ? { filters: filters.map(asFilter) } : {}),
    });
    // Only the library gives up, event by event: a batch that Lambda discards would be missing for good.
    const resource = this.mapping.node.defaultChild as lambda.CfnEventSourceMapping;
    resource.maximumRecordAgeInSeconds = -1;
    changeStream.grantRead(handler, this.fanOut);
    // Lambda checks the role when the mapping is made.
    if (handler.role) this.mapping.node.addDependency(handler.role);
  }

  /** The roles of its functions. */
  get roles(): readonly iam.IGrantable[] {
    const functions = [this.function, this.redrive.function, this.automaticRedrive?.function];
    return functions.flatMap((made) => made?.role ?? []);
  }

  /**
   * The mapping's source is replaced with it. It begins at the oldest record, never at a time: what the consumer had not read before that
   * would be passed over, and nobody sees from the template how late it is.
   */
  #sayWhatFanOutReads(retentionHours: number): void {
    Annotations.of(this).addInfoV2(
      "tributary:fan-out-reads-again",
      `enhancedFanOut of ${this.name}: switched on for a consumer that runs already, it has the event source mapping made anew, which reads again what the stream keeps (${retentionHours} h). What took effect is passed over and nothing is lost, but the consumer is late until it is through, and its reads and invocations are paid for. Switching it off does the same.`,
    );
  }
}

function asFilter(pattern: object) {
  return { pattern: JSON.stringify(pattern) };
}
