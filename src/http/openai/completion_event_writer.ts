// Completion event writer: a streamed answer as events of OpenAI's legacy `text_completion`. Runs for every token, like that of chat.
import type { ChatEvent } from "../../engines/chat.ts";
import type { EventWriter } from "../event_stream.ts";
import { finishOf } from "./completion_answer.ts";
import { DONE, type EventForm, faultEvent, frameOfEvents, usageEvent } from "./generation_answer.ts";

/** Writes one stream. */
export function completionEventWriter(form: EventForm): EventWriter<ChatEvent> {
  const [before, behind] = frameOfEvents("text_completion", form);
  const chunk = (choice: number, text: string, finish: string, logprobs: string): string =>
    `${before}{"index":${choice},"text":${text},"logprobs":${logprobs},"finish_reason":${finish}}${behind}`;
  const write = (event: ChatEvent): string => {
    switch (event.type) {
      case "text":
        return chunk(
          event.choice,
          JSON.stringify(event.text),
          "null",
          event.logprobs === undefined ? "null" : JSON.stringify(event.logprobs),
        );
      case "finish":
        return chunk(event.choice, '""', `"${finishOf(event.reason)}"`, "null");
      case "usage":
        return form.usage ? usageEvent(before, event.usage) : "";
      // The legacy form has no place for these.
      case "reasoning":
      case "refusal":
      case "tool_call":
        return "";
    }
  };
  return {
    open: () => "",
    items(batch) {
      let text = "";
      for (const event of batch) text += write(event);
      return text;
    },
    close: () => DONE,
    fault: (fault) => faultEvent(fault, form.requestId),
  };
}
