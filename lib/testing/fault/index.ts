/**
 * tributary-cdc/testing/fault: proxies that break links on demand, failpoints, and the checker that holds what a sink did against
 * what it had to do. They stand in front of real servers or emulators, and need none of their own.
 *
 * @example
 * import { AwsFaultProxy, checkEffects, FAILPOINTS_VARIABLE, TcpFaultProxy } from "tributary-cdc/testing/fault";
 *
 * const proxy = await AwsFaultProxy.start({ target: emulator, choose: ({ number }) => (number === 3 ? { kind: "cut" } : undefined) });
 */

export { FAILPOINTS, FAILPOINTS_VARIABLE, type Failpoint } from "../../failpoint.ts";
export {
  checkEffects,
  type Effect,
  type ExpectedEvent,
  type Findings,
  type InvocationTimes,
  type SinkPromise,
} from "../checker/check.ts";
export {
  type AwsCall,
  type AwsFault,
  AwsFaultProxy,
  type AwsFaultProxyOptions,
  type ChooseFault,
} from "./aws-proxy.ts";
export { entriesOf, failEntries, type WireEntry } from "./put-records.ts";
export { type Cut, FaultLink, type Slowness, TcpFaultProxy } from "./tcp-proxy.ts";
