// Anthropic wire: chat over the Messages API, version 2023-06-01, whole and in events.
import { Fault } from "../../../faults/fault.ts";
import type { ChatRequest } from "../../chat.ts";
import type { StreamCall, WholeCall, Wire, WireOptions, WireRequest } from "../wire.ts";
import { openMessageReader } from "./message_events.ts";
import { readMessage, writeMessages } from "./messages.ts";

const VERSION = { "anthropic-version": "2023-06-01" } as const;

/** The wire of Anthropic and of servers that speak as it does; the base address is the origin, without `/v1`. */
export const anthropicWire: Wire = {
  kind: "anthropic",
  healthPath: "/v1/models",
  // The version goes along: a health check sends these headers only, and is refused without it.
  credentialHeaders: (key) => ({ "x-api-key": key, ...VERSION }),
  whole(request, options) {
    const call: WholeCall<"chat"> = {
      request: post(requireChat(request), options, false),
      read: ({ bytes }) => readMessage(bytes),
    };
    return call as WholeCall<never>;
  },
  stream(request, options) {
    const call: StreamCall<"chat"> = {
      request: post(requireChat(request), options, true),
      framing: "events",
      openReader: openMessageReader,
    };
    return call as StreamCall<never>;
  },
};

function requireChat(request: { readonly task: string }): ChatRequest {
  if (request.task !== "chat") {
    throw new Fault("capability_missing", "Cannot ask an Anthropic server for this task: it only chats");
  }
  return request as ChatRequest;
}

function post(request: ChatRequest, { model }: WireOptions, stream: boolean): WireRequest {
  return {
    method: "POST",
    path: "/v1/messages",
    headers: { "content-type": "application/json", ...VERSION },
    body: JSON.stringify(writeMessages(request, model, stream)),
    accept: [stream ? "text/event-stream" : "application/json"],
  };
}
