"use strict";
// A file of its own: an old Node stumbles over import() as it reads the file that has it.
import("../lib/cli/main.js");
