// `POST /v1/messages/count_tokens`: about how many tokens a conversation is. Nothing is run.
import { z } from "@hono/zod-openapi";
import { countChatTokens } from "../../inference/count_tokens.ts";
import { extraFields } from "../inference_door.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import { anthropicDialect } from "./anthropic_error.ts";
import { countTokensBody } from "./messages_body.ts";
import { neutralMessages, neutralTools } from "./messages_input.ts";
import type { AnthropicParts } from "./messages_route.ts";

const tokensCount = z.strictObject({ input_tokens: z.int().describe("An estimate of this server's own.") });

/** The route. */
export function countTokensRoute({ door, imageHosts, mediaBodyBytesMax }: AnthropicParts): AnyRoute {
  const body = countTokensBody(imageHosts);
  const known: ReadonlySet<string> = new Set(Object.keys(body.shape));
  return defineRoute({
    method: "POST",
    path: "/v1/messages/count_tokens",
    summary: "Estimate the tokens of a conversation in Anthropic's form",
    policy: { kind: "action", action: "model:infer" },
    dialect: anthropicDialect,
    rated: true,
    body,
    bodyBytesMax: mediaBodyBytesMax,
    answers: { 200: { description: "The estimate.", schema: tokensCount } },
    faults: ["model_not_found", "capability_missing", "unavailable"],
    async handle(exchange, body) {
      const model = door.find(exchange, body.model, "chat");
      extraFields(body, known, model);
      await exchange.record.allowed("model:infer", model.id);
      return {
        status: 200,
        body: { input_tokens: countChatTokens(neutralMessages(body), neutralTools(body)) },
      };
    },
  });
}
