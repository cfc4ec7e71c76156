import { consumer } from "../../../index.ts";
import { SinkSession } from "./session.ts";

/** A sink that can do nothing but append: the fence alone stands between it and a duplicate. */
const session = new SinkSession("append");

export const handler = session.recorded(
  consumer("append")
    .on("checked.*", ["create", "update", "delete", "truncate"], (event) => session.append(event))
    .handler(),
);
