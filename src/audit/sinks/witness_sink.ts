// Witness sink: each signed checkpoint as a text, to somebody who keeps them apart from this server.
import { openHttpPost } from "./http_post.ts";
import type { Sink } from "./sink.ts";
import type { WitnessOptions } from "./sink_options.ts";

/** A sink of checkpoints: one POST each, in their order. */
export function openWitnessSink(options: WitnessOptions): Sink<string> {
  const post = openHttpPost(options, options.url, { "content-type": "text/plain; charset=utf-8" });
  return {
    acknowledges: true,
    async send(notes) {
      for (const note of notes) await post.send(note, 1);
    },
    close() {
      post.close();
      return Promise.resolve(true);
    },
  };
}
