// Anthropic-compatible routes, as its official clients speak.
import type { AnyRoute } from "../route.ts";
import { countTokensRoute } from "./count_tokens_route.ts";
import { type AnthropicParts, messagesRoute } from "./messages_route.ts";

/** `POST /v1/messages` and `POST /v1/messages/count_tokens`. */
export function anthropicRoutes(parts: AnthropicParts): AnyRoute[] {
  return [messagesRoute(parts), countTokensRoute(parts)];
}
