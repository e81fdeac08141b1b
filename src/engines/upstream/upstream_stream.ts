// Upstream stream: an upstream's answer in pieces, read only when the next piece is asked for.
import type { AnswerStream } from "../answer_stream.ts";
import { Fault } from "../../faults/fault.ts";
import type { StreamItem, StreamTask } from "../task.ts";
import { createEventStreamParser } from "./event_stream_parser.ts";
import type { UpstreamCall } from "./upstream_call.ts";
import { UpstreamFault } from "./upstream_fault.ts";
import type { EventReader, StreamCall } from "./wire.ts";

/** The next items, at least one; undefined at the answer's good end. */
type Pull<Item> = () => Promise<readonly Item[] | undefined>;

/**
 * Opens a call whose answer comes in pieces and waits for the first. From then on the stream owns the call.
 *
 * @param onFirst hears that the first pieces are there
 * @throws Fault as `UpstreamCall.open` and `read`, and what the wire's reader throws
 */
export async function openUpstreamStream<T extends StreamTask>(
  call: UpstreamCall,
  wireCall: StreamCall<T>,
  onFirst: () => void,
): Promise<AnswerStream<StreamItem<T>>> {
  const { mediaType } = await call.open(wireCall.request);
  const isBytes = wireCall.framing === "bytes";
  const pull = isBytes
    // The only task whose items are bytes is the one that is framed so.
    ? bytesOf(call) as Pull<StreamItem<T>>
    : itemsOf(call, wireCall.openReader());
  let first = await pull();
  if (first !== undefined) onFirst();
  return {
    ...(isBytes ? { mediaType } : {}),
    next() {
      if (first === undefined) return pull();
      const items = first;
      first = undefined;
      return Promise.resolve(items);
    },
    cancel: () => call.cancel(),
  };
}

/** The items of an event stream. What the protocol's own mark does not end was broken off. */
function itemsOf<Item>(call: UpstreamCall, reader: EventReader<Item>): Pull<Item> {
  const parser = createEventStreamParser();
  let isOver = false;
  return async () => {
    while (!isOver && !reader.ended) {
      const bytes = await call.read();
      if (bytes === undefined) {
        // Servers that end without a mark have said all the same that every answer is complete.
        const rest = reader.end?.();
        if (rest !== undefined) {
          isOver = true;
          call.finish();
          return rest.length > 0 ? rest : undefined;
        }
        throw call.fail(
          new UpstreamFault(
            "upstream_unreachable",
            "Cannot go on: the upstream's stream ended without its mark",
          ),
        );
      }
      const items: Item[] = [];
      try {
        for (const event of parser.push(bytes)) {
          for (const item of reader.read(event)) items.push(item);
          if (reader.ended) break;
        }
      } catch (thrown) {
        throw call.fail(faultOfReading(thrown));
      }
      // The connection may stay open for as long as it likes; the answer is over.
      if (reader.ended) call.finish();
      if (items.length > 0) return items;
    }
    return undefined;
  };
}

/** Bytes as they come. Their end is that of the body, which a connection that drops does not reach. */
function bytesOf(call: UpstreamCall): Pull<Uint8Array> {
  let isEmpty = true;
  return async () => {
    for (;;) {
      const bytes = await call.read();
      if (bytes === undefined) {
        if (isEmpty) throw call.fail(faultOfReading(undefined));
        call.finish();
        return undefined;
      }
      if (bytes.length === 0) continue;
      isEmpty = false;
      // The call's buffer is used again for the next piece.
      return [bytes.slice()];
    }
  };
}

/** What a wire's reader threw. Anything but a Fault may quote the answer, and stays here. */
export function faultOfReading(thrown: unknown): Fault {
  if (thrown instanceof Fault) return thrown;
  return new UpstreamFault(
    "upstream_answer_invalid",
    "Cannot read the upstream's answer: it is not of its protocol",
  );
}
