/*
 * Stands for the runtime interface clients' native addon, which is not built here: the Lambda Runtime API over HTTP. An
 * answer is sent before the next invocation is asked for, as the addon does.
 * https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
 */
const { request } = require("node:http");
const Module = require("node:module");

const [host, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(":");
let sent = Promise.resolve();

function call(method, path, body) {
  return new Promise((resolve, reject) => {
    const options = { host, port, method, path: `/2018-06-01/runtime/invocation/${path}`, agent: false };
    const made = request(options, (response) => {
      const chunks = [];
      response.on("data", (chunk) => chunks.push(chunk));
      response.on("end", () => {
        resolve({ bodyJson: Buffer.concat(chunks).toString(), headers: response.headers });
      });
    });
    made.on("error", reject).end(body);
  });
}

const client = {
  initializeClient() {},
  next: () => sent.then(() => call("GET", "next")),
  done(id, body) {
    sent = call("POST", `${id}/response`, body);
  },
  error(id, body) {
    sent = call("POST", `${id}/error`, body);
  },
};

const load = Module._load;
Module._load = (name, ...rest) => (name === "./rapid-client.node" ? client : load(name, ...rest));
