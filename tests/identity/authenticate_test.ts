// Tests of authenticate: one header, one scheme, one token; all else is nobody.
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { openAccessTokens } from "../../src/identity/access_token.ts";
import { openAuthenticate } from "../../src/identity/authenticate.ts";
import { openRevocations } from "../../src/identity/revocation.ts";
import { openMemoryRecordStore } from "../../src/store/memory_record_store.ts";
import { manualClock } from "../support/manual_clock.ts";
import { makeSigningKeys } from "./open_identity.ts";

async function openEntrance() {
  const clock = manualClock();
  const accessTokens = openAccessTokens({
    issuer: "https://ai.example.com",
    ttlSeconds: 900,
    keys: (await makeSigningKeys()).keys,
    revocations: await openRevocations(openMemoryRecordStore(clock), clock),
    clock,
  });
  const { token } = await accessTokens.issue({ id: "usr_1", roles: ["user"] });
  return { authenticate: openAuthenticate(accessTokens), token, clock };
}

Deno.test("RFC 9110 §11.1: the scheme is recognised in any case, with one space or more", async () => {
  const { authenticate, token } = await openEntrance();
  for (const scheme of ["Bearer ", "bearer ", "BEARER ", "bEaReR ", "Bearer    "]) {
    const outcome = await authenticate(`${scheme}${token}`);
    strictEqual(outcome.ok && outcome.value.subject, "usr_1", scheme);
  }
});

Deno.test("RFC 6750 §3.1: no header is told from a header with something else in it", async () => {
  const { authenticate } = await openEntrance();
  deepStrictEqual(await authenticate(null), { ok: false, reason: "missing" });
  deepStrictEqual(await authenticate(""), { ok: false, reason: "scheme_unknown" });
});

Deno.test("other schemes, several credentials and texts that are no b64token are refused unread", async () => {
  const { authenticate, token } = await openEntrance();
  for (
    const header of [
      "Bearer",
      "Bearer ",
      token,
      `Bearer${token}`,
      `Bearer\t${token}`,
      `Bearer\u00a0${token}`,
      `Basic ${token}`,
      "Basic dXNlcjpwYXNz",
      `DPoP ${token}`,
      `Token ${token}`,
      `Bearer ${token}, Bearer ${token}`, // two headers, joined
      `Bearer ${token},Bearer ${token}`,
      `Bearer ${token} ${token}`,
      `Basic dXNlcjpwYXNz, Bearer ${token}`,
      `Bearer ${token}\r\nX-Role: admin`,
      `Bearer "${token}"`,
      `Bearer token=${token},x`,
      `xBearer ${token}`,
      ` Bearer ${token}`,
      `Bearer ${token} `,
    ]
  ) deepStrictEqual(await authenticate(header), { ok: false, reason: "scheme_unknown" }, header.slice(0, 20));
});

Deno.test("a token's own refusal comes through", async () => {
  const { authenticate, token, clock } = await openEntrance();
  deepStrictEqual(await authenticate("Bearer abc"), { ok: false, reason: "malformed" });
  deepStrictEqual(await authenticate(`Bearer =${token}`), { ok: false, reason: "malformed" });
  deepStrictEqual(await authenticate(`Bearer ${"A".repeat(100_000)}`), { ok: false, reason: "malformed" });
  clock.advance(900_000);
  deepStrictEqual(await authenticate(`Bearer ${token}`), { ok: false, reason: "expired" });
});
