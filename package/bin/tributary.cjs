#!/usr/bin/env node
"use strict";
// Any Node must be able to read this file, also one that knows nothing of what the command is written in: plain old syntax alone.

var NEEDED = 24;
var NEEDED_BY_INIT = 20;
var found = process.versions.node;
var remedy = "npm install --save-dev node@24 (npx and the scripts of npm run that one in this project)";
var once = "npx --package node@24 --package tributary-cdc tributary-cdc";

if (parseInt(found, 10) >= NEEDED) {
  require("./run.cjs");
} else if (process.argv[2] === "init" && parseInt(found, 10) >= NEEDED_BY_INIT) {
  // What it makes brings a Node of its own for its scripts.
  require("./init.cjs");
} else {
  console.error("tributary needs Node 24 or newer; this is Node " + found + ": " + remedy + ", or " + once);
  process.exitCode = 1;
}
