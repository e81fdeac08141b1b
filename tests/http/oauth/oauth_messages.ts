// OAuth messages: forms and headers as clients write them, and what answers say in short.

/** A JSON answer. */
export interface JsonAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Record<string, unknown>;
}

/** The pieces of a form. */
export type Form = Readonly<Record<string, string>>;

/** The header of `client_secret_basic`, with every character escaped that can be. */
export function basic(id: string, secret: string): { authorization: string } {
  const escaped = [id, secret].map((text) =>
    [...new TextEncoder().encode(text)].map((byte) => `%${byte.toString(16).padStart(2, "0").toUpperCase()}`)
      .join("")
  );
  return { authorization: `Basic ${btoa(escaped.join(":"))}` };
}

/** The form of a refresh. */
export const refreshing = (refreshToken: string, more: Form = {}): Form => ({
  grant_type: "refresh_token",
  refresh_token: refreshToken,
  ...more,
});

/** What an answer says in short. */
export const outcomeOf = ({ status, body }: JsonAnswer): readonly unknown[] => [status, body.error];

/** The claims of a token, unverified. */
export function claimsOf(token: unknown): Record<string, unknown> {
  const [, claims = ""] = String(token).split(".");
  return JSON.parse(new TextDecoder().decode(Uint8Array.fromBase64(claims, { alphabet: "base64url" })));
}
