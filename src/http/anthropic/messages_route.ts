// `POST /v1/messages`, as Anthropic's reference has it.
import { countChatTokens } from "../../inference/count_tokens.ts";
import { eventStreamAnswer } from "../event_stream.ts";
import type { Exchange } from "../exchange.ts";
import { extraFields, INFERENCE_FAULTS, type InferenceDoor } from "../inference_door.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import { anthropicDialect } from "./anthropic_error.ts";
import { messageEventWriter } from "./message_event_writer.ts";
import { describeMessage, message } from "./messages_answer.ts";
import { messagesBody } from "./messages_body.ts";
import { chatRequest, placeMessagesField, showsThinking } from "./messages_input.ts";

/** What the routes need. */
export interface AnthropicParts {
  readonly door: InferenceDoor;
  /** Hosts, in lower case, from which engines may be told to fetch images. */
  readonly imageHosts: ReadonlySet<string>;
  /** Largest body of a request that can carry images. */
  readonly mediaBodyBytesMax: number;
}

/** The route. */
export function messagesRoute({ door, imageHosts, mediaBodyBytesMax }: AnthropicParts): AnyRoute {
  const body = messagesBody(imageHosts);
  const known: ReadonlySet<string> = new Set(Object.keys(body.shape));
  return defineRoute({
    method: "POST",
    path: "/v1/messages",
    summary: "Continue a conversation in Anthropic's form, whole or as events",
    policy: { kind: "action", action: "model:infer" },
    admits: true,
    dialect: anthropicDialect,
    rated: true,
    body,
    bodyBytesMax: mediaBodyBytesMax,
    answers: {
      200: { description: "The answer; with `stream`, its pieces as server-sent events.", schema: message },
    },
    faults: INFERENCE_FAULTS,
    async handle(exchange, body) {
      const model = door.find(exchange, body.model, "chat");
      const request = chatRequest(body, extraFields(body, known, model));
      const head = { id: messageIdOf(exchange), model: model.id };
      const showThinking = showsThinking(body);
      if (body.stream !== true) {
        const { answer } = await door.whole<"chat">(exchange, model.id, request, placeMessagesField);
        return { status: 200, body: describeMessage(head, answer, showThinking) };
      }
      const begun = door.stream<"chat">(exchange, model.id, request, placeMessagesField);
      // While the engine begins: many clients read the input's tokens from the first event only, before the engine tells them.
      const inputTokens = countChatTokens(request.messages, request.tools);
      const stream = await begun;
      return eventStreamAnswer(
        stream,
        messageEventWriter({ head, inputTokens, showThinking, requestId: exchange.id }),
      );
    },
  });
}

/** One request has one message: its id is the request's with another prefix, so that the audit trail can be asked for it. */
function messageIdOf({ id }: Exchange): string {
  return `msg_${id.slice(id.indexOf("_") + 1)}`;
}
