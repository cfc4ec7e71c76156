// Lambda's runtimes look for `index.handler` in the function's directory.
export { handler } from "../handlers.ts";
