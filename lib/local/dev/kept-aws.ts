import type { Pipeline } from "../../definition/definition.ts";
import type { Display } from "../display.ts";
import { type LocalAws, startLocalAws } from "../host.ts";
import { localParts } from "../local-parts.ts";
import { DevEmulatorError, DevStateUnwritableError } from "./dev-errors.ts";
import type { StateDirectory } from "./state-directory.ts";

/** Starts the emulators on what the state directory keeps of them. `onFailure` gets the end of one that ends by itself. */
export async function startAws(
  directory: StateDirectory,
  definition: Pipeline,
  signal: AbortSignal,
  display: Display,
  onFailure: (error: Error) => void,
): Promise<LocalAws> {
  const { refusedText } = await localParts();
  // Cut off before anything was in them.
  if (!directory.state.ready) await directory.remove("aws", "checkpoints");
  return await startLocalAws(definition, signal, {
    directory: directory.file("aws"),
    onRefusal: (call) => display.log(refusedText(call)),
    onEnded: (service, printed) => onFailure(emulatorFailure(directory.file("aws"), service, printed)),
  });
}

/** Most often it is the disk that is full. */
function emulatorFailure(place: string, service: string, printed: string): Error {
  const cause = /\b(?:ENOSPC|EDQUOT|EROFS|EIO)\b[^\n]*|[Nn]o space left on device/.exec(printed)?.[0];
  return cause === undefined
    ? new DevEmulatorError(service, printed)
    : new DevStateUnwritableError(place, cause);
}
