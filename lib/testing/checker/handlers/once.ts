import { consumer } from "../../../index.ts";
import { SinkSession } from "./session.ts";

/** A sink whose effects must not repeat after they were recorded: a letter, a payment. */
const session = new SinkSession("once");

export const handler = session.recorded(
  consumer("once")
    .on("checked.*", ["create", "update", "delete", "truncate"], { once: "claim" }, (event) =>
      session.append(event),
    )
    .handler(),
);
