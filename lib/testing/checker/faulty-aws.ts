import type { Emulators } from "../../local/emulators.ts";
import { type AwsCall, AwsFaultProxy, type ChooseFault } from "../fault/aws-proxy.ts";

const SERVICES = ["kinesis", "dynamodb", "sqs"] as const;
/** A service that faults can be put before. */
export type FaultyService = (typeof SERVICES)[number];

/** The emulators behind fault proxies, one a service. */
export class FaultyAws {
  /** As the emulators', but led through the proxies. */
  readonly environment: Readonly<Record<string, string>>;
  readonly #proxies: readonly AwsFaultProxy[];
  readonly #choose: Map<FaultyService, ChooseFault>;

  private constructor(
    environment: Readonly<Record<string, string>>,
    proxies: readonly AwsFaultProxy[],
    choose: Map<FaultyService, ChooseFault>,
  ) {
    this.environment = environment;
    this.#proxies = proxies;
    this.#choose = choose;
  }

  /** Starts the proxies; nothing goes wrong until `choose` is called. */
  static async start(
    emulators: Emulators,
    onAnswer: (call: AwsCall, status: number, body: Buffer) => void,
  ): Promise<FaultyAws> {
    const choose = new Map<FaultyService, ChooseFault>();
    const proxies = await Promise.all(
      SERVICES.map((service) =>
        AwsFaultProxy.start({
          target: emulators[service].endpoint,
          choose: (call) => choose.get(service)?.(call),
          onAnswer,
        }),
      ),
    );
    const endpoints = SERVICES.map((service, i) => [
      `AWS_ENDPOINT_URL_${service.toUpperCase()}`,
      (proxies[i] as AwsFaultProxy).endpoint,
    ]);
    return new FaultyAws({ ...emulators.environment, ...Object.fromEntries(endpoints) }, proxies, choose);
  }

  /** From now on this decides what goes wrong with the calls of a service; undefined: nothing. */
  choose(service: FaultyService, fault: ChooseFault | undefined): void {
    if (fault) this.#choose.set(service, fault);
    else this.#choose.delete(service);
  }

  async stop(): Promise<void> {
    await Promise.all(this.#proxies.map((proxy) => proxy.stop()));
  }
}
