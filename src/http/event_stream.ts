// Event stream: answers in pieces as server-sent events (WHATWG HTML §9.2), written at the pace of the client.
import type { AnswerStream } from "../engines/answer_stream.ts";
import { encodeUtf8 } from "../encoding/utf8.ts";
import { Fault, toFault } from "../faults/fault.ts";
import type { Answer } from "./route.ts";

/** How a dialect writes one stream. It has state: one for each stream. Every method returns whole events, or "". */
export interface EventWriter<Item> {
  /** Before the first items. */
  open(): string;
  /** Items that came together. */
  items(batch: readonly Item[]): string;
  /** After the last items of a stream that ended well; its record is durable by then. */
  close(): string;
  /** In the place of all that would have followed. */
  fault(fault: Fault): string;
}

/**
 * One event. JSON escapes every line end in what it quotes, so that no text of a model or a caller can forge an event.
 *
 * @param data serialised as JSON
 * @param event the event's type, a constant word of ours; absent: none is named
 */
export function eventText(data: unknown, event?: string): string {
  return `${event === undefined ? "" : `event: ${event}\n`}data: ${JSON.stringify(data)}\n\n`;
}

/** The answer that sends a stream through a writer. */
export function eventStreamAnswer<Item>(stream: AnswerStream<Item>, writer: EventWriter<Item>): Answer {
  let opened = false;
  let ended = false;
  let brokenBy: Fault | undefined;
  const text = async (): Promise<string | undefined> => {
    if (ended) return undefined;
    try {
      const opening = opened ? "" : writer.open();
      opened = true;
      const batch = await stream.next();
      if (batch !== undefined) return opening + writer.items(batch);
      ended = true;
      return opening + writer.close();
    } catch (thrown) {
      ended = true;
      brokenBy = toFault(thrown);
      stream.cancel(brokenBy);
      return writer.fault(brokenBy);
    }
  };
  return {
    status: 200,
    headers: {
      "Content-Type": "text/event-stream; charset=utf-8",
      // Proxies that gather answers would hold the events back.
      "X-Accel-Buffering": "no",
    },
    stream: {
      async next() {
        // A batch may hold nothing for the client, such as figures that it did not ask for.
        for (;;) {
          const piece = await text();
          if (piece === undefined) return undefined;
          if (piece !== "") return [encodeUtf8(piece)];
        }
      },
      cancel() {
        brokenBy ??= new Fault("client_left", "Cannot go on: the client left");
        stream.cancel();
      },
      brokenBy: () => brokenBy,
    },
  };
}

/** The answer that sends bytes as they come. What breaks breaks the transfer off. */
export function byteStreamAnswer(stream: AnswerStream<Uint8Array>): Answer {
  let brokenBy: Fault | undefined;
  return {
    status: 200,
    headers: { "Content-Type": stream.mediaType ?? "application/octet-stream" },
    stream: {
      async next() {
        try {
          return await stream.next();
        } catch (thrown) {
          brokenBy = toFault(thrown);
          throw brokenBy;
        }
      },
      cancel() {
        brokenBy ??= new Fault("client_left", "Cannot go on: the client left");
        stream.cancel();
      },
      brokenBy: () => brokenBy,
    },
  };
}
