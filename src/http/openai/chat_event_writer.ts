// Chat event writer: a streamed answer as OpenAI's `chat.completion.chunk` events. Runs for every token: text is put together here,
// and only what changes is serialised.
import type { ChatEvent } from "../../engines/chat.ts";
import type { EventWriter } from "../event_stream.ts";
import { DONE, type EventForm, faultEvent, frameOfEvents, usageEvent } from "./generation_answer.ts";

/**
 * Writes one stream.
 *
 * @param choices how many answers were asked for
 */
export function chatEventWriter(form: EventForm, choices: number): EventWriter<ChatEvent> {
  const [before, behind] = frameOfEvents("chat.completion.chunk", form);
  /** `delta` is the text of a JSON object. */
  const chunk = (choice: number, delta: string, finish = "null", logprobs = "null"): string =>
    `${before}{"index":${choice},"delta":${delta},"logprobs":${logprobs},"finish_reason":${finish}}${behind}`;
  const write = (event: ChatEvent): string => {
    switch (event.type) {
      case "text":
        return chunk(
          event.choice,
          `{"content":${JSON.stringify(event.text)}}`,
          undefined,
          event.logprobs === undefined ? undefined : JSON.stringify(event.logprobs),
        );
      case "reasoning":
        return chunk(event.choice, `{"reasoning_content":${JSON.stringify(event.text)}}`);
      case "refusal":
        return chunk(event.choice, `{"refusal":${JSON.stringify(event.text)}}`);
      case "tool_call":
        return chunk(event.choice, toolCallDelta(event));
      case "finish":
        return chunk(event.choice, "{}", `"${event.reason}"`);
      case "usage":
        return form.usage ? usageEvent(before, event.usage) : "";
    }
  };
  return {
    open() {
      let text = "";
      for (let choice = 0; choice < choices; choice++) {
        text += chunk(choice, `{"role":"assistant","content":"","refusal":null}`);
      }
      return text;
    },
    items(batch) {
      let text = "";
      for (const event of batch) text += write(event);
      return text;
    },
    close: () => DONE,
    fault: (fault) => faultEvent(fault, form.requestId),
  };
}

function toolCallDelta(event: Extract<ChatEvent, { readonly type: "tool_call" }>): string {
  const { index, id, name, arguments: written } = event;
  const begin = id === undefined ? "" : `"id":${JSON.stringify(id)},"type":"function",`;
  const called = name === undefined ? "" : `"name":${JSON.stringify(name)},`;
  return `{"tool_calls":[{"index":${index},${begin}"function":{${called}"arguments":${
    JSON.stringify(written)
  }}}]}`;
}
