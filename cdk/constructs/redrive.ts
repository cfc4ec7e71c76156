import { Duration } from "aws-cdk-lib";
import type * as lambda from "aws-cdk-lib/aws-lambda";
import { Construct } from "constructs";
import { ConsumerFunction, type ConsumerFunctionProps } from "./consumer-function.ts";

/** Props of `Redrive`: those of its consumer's function. */
export type RedriveProps = Omit<ConsumerFunctionProps, "timeout" | "description" | "redrives">;

/** As long as Lambda lets it: parked changes are applied one by one. */
export const REDRIVE_TIMEOUT = Duration.minutes(15);

/**
 * Brings a consumer's parked changes to effect, in order: the consumer's own handler, invoked by `tributary redrive` or
 * by hand with `{"tributary":"redrive"}`. Apart from the consumer, so that it has time and takes no lane of the stream.
 */
export class Redrive extends Construct {
  readonly function: lambda.Function;

  constructor(scope: Construct, id: string, props: RedriveProps) {
    super(scope, id);
    const { definition, consumer } = props;
    this.function = new ConsumerFunction(this, "Handler", {
      ...props,
      timeout: REDRIVE_TIMEOUT,
      redrives: true,
      description: `Tributary: redrive of ${consumer.name} of ${definition.name}`,
    }).function;
  }
}
