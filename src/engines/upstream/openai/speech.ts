// Speech: text as POST /audio/speech; the sound is passed on as it comes.
import { Fault } from "../../../faults/fault.ts";
import type { SpeechRequest } from "../../task.ts";
import type { StreamCall, WireOptions } from "../wire.ts";
import { jsonRequest } from "./json_request.ts";

/** Text to sound. */
export function speechStream(request: SpeechRequest, { model }: WireOptions): StreamCall<"speech"> {
  const { text, voice, format, speed, instructions } = request;
  return {
    request: jsonRequest("/audio/speech", ["audio/*", "application/octet-stream"], {
      model,
      input: text,
      voice,
      response_format: format,
      speed,
      instructions,
    }),
    framing: "bytes",
    openReader() {
      throw new Fault("internal", "Cannot read events of speech: it comes as bytes");
    },
  };
}
