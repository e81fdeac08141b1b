// Tests of redaction: what looks secret by its name or by its form is masked, all else is left alone.
import { strictEqual } from "node:assert/strict";
import { redact, REDACTED } from "../../src/telemetry/redaction.ts";

// In pieces, so that no scanner takes this file for a leak.
const JWT = ["eyJhbGciOiJFZERTQSJ9", "eyJzdWIiOiJ1c3JfMSJ9", "c2lnbmF0dXJl"].join(".");
const PEM = `-----BEGIN ${"PRIVATE"} KEY-----\nMC4CAQAwBQYDK2VwBCIEIA\n-----END ${"PRIVATE"} KEY-----`;

Deno.test("a field whose name says that it is secret is masked, whatever its value is", () => {
  for (
    const name of [
      "password",
      "adminPassword",
      "PASSWD",
      "client_secret",
      "Authorization",
      "set-cookie",
      "accessToken",
      "api_key",
      "apiKey",
      "privateKey",
    ]
  ) {
    strictEqual(redact(name, "hunter2"), REDACTED, name);
    strictEqual(redact(name, true), REDACTED, name);
  }
});

Deno.test("numbers and null under such a name stay: a count of tokens is no token", () => {
  strictEqual(redact("tokens", 42), 42);
  strictEqual(redact("password", null), null);
});

Deno.test("a token, a credential or a private key is masked under any name, and what stands around it stays", () => {
  strictEqual(redact("reason", `cannot verify ${JWT}!`), `cannot verify ${REDACTED}!`);
  strictEqual(redact("reason", JWT), REDACTED);
  strictEqual(redact("path", `/v1/models?x=${JWT}&y=1`), `/v1/models?x=${REDACTED}&y=1`);
  strictEqual(redact("reason", `${JWT} and ${JWT}`), `${REDACTED} and ${REDACTED}`);
  strictEqual(redact("header", "Bearer abcdefgh12345678"), `Bearer ${REDACTED}`);
  strictEqual(redact("header", "got basic dXNlcjpwYXNzd29yZA== twice"), `got basic ${REDACTED} twice`);
  strictEqual(redact("header", "DPoP\tabcdefgh12345678"), `DPoP ${REDACTED}`);
  strictEqual(redact("reason", `bad key ${PEM} here`), `bad key ${REDACTED} here`);
  strictEqual(redact("reason", `cut ${PEM.slice(0, 45)}`), `cut ${REDACTED}`);
});

Deno.test("what holds no secret is not touched", () => {
  for (
    const value of ["POST /v1/embeddings", "the bearer of news", "use-lite", "eyJ", "", "a b c", true, 0]
  ) {
    strictEqual(redact("value", value), value);
  }
});
