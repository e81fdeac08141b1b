// Tests of challenges: strict RFC 9110 syntax, the words of RFC 6750, RFC 9449 and RFC 9728, and nothing of a client's in them.
import { deepStrictEqual, ok as isTrue, strictEqual } from "node:assert/strict";
import { ACTIONS } from "../../src/access/action.ts";
import { Fault, type FaultDetails, type FaultKind } from "../../src/faults/fault.ts";
import { FAULT_TABLE } from "../../src/faults/fault_table.ts";
import { challenges } from "../../src/http/challenge.ts";
import { ALGORITHMS } from "../../src/identity/public_key.ts";

const PUBLIC_URL = "https://ai.example.com";
const METADATA = "https://ai.example.com/.well-known/oauth-protected-resource";

interface ParsedChallenge {
  readonly scheme: string;
  readonly parameters: Readonly<Record<string, string>>;
}

const TOKEN = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y;
const QUOTED = /"((?:[\t \x21\x23-\x5b\x5d-\x7e]|\\[\t\x20-\x7e])*)"/y;

/**
 * RFC 9110 §11.6.1 without what senders must not write: no empty list elements, no white space around "=", no token68.
 * Throws where a text is none.
 */
function parseChallenges(text: string): ParsedChallenge[] {
  const found: { scheme: string; parameters: Record<string, string> }[] = [];
  let at = 0;
  function take(pattern: RegExp): string {
    pattern.lastIndex = at;
    const match = pattern.exec(text);
    if (match === null) throw new SyntaxError(`${JSON.stringify(text)} is no challenge from ${at}`);
    at = pattern.lastIndex;
    return match[1] ?? match[0];
  }
  do {
    if (found.length > 0) take(/, /y);
    let name = take(TOKEN);
    if (text[at] !== "=") {
      found.push({ scheme: name, parameters: {} });
      if (text[at] !== " ") continue;
      take(/ /y);
      name = take(TOKEN);
    }
    take(/=/y);
    const value = text[at] === '"' ? take(QUOTED).replace(/\\(.)/g, "$1") : take(TOKEN);
    const parameters = found.at(-1)?.parameters;
    // RFC 9110 §11.2: a name once a challenge, whatever its case.
    if (parameters === undefined || Object.hasOwn(parameters, name.toLowerCase())) {
      throw new SyntaxError(`${name} stands before a scheme, or twice`);
    }
    parameters[name.toLowerCase()] = value;
  } while (at < text.length);
  return found;
}

function challengeOf(kind: FaultKind, details: FaultDetails = {}, publicUrl = PUBLIC_URL) {
  return challenges(publicUrl)(new Fault(kind, "for a test", details), FAULT_TABLE[kind].status);
}
const parsed = (...parameters: Parameters<typeof challengeOf>) =>
  parseChallenges(challengeOf(...parameters) ?? "");

Deno.test("the parser of these tests reads the example of RFC 9110 and refuses what is none", () => {
  deepStrictEqual(
    parseChallenges('Basic realm="simple", Newauth realm="apps", type=1, title="Login to \\"apps\\"", Bare'),
    [
      { scheme: "Basic", parameters: { realm: "simple" } },
      { scheme: "Newauth", parameters: { realm: "apps", type: "1", title: 'Login to "apps"' } },
      { scheme: "Bare", parameters: {} },
    ],
  );
  for (
    const text of [
      "",
      " ",
      "Basic ",
      "Basic realm=",
      'Basic realm="a',
      'Basic realm="a"b"',
      'Basic realm="a\r\nX: y"',
      'Basic realm="\u00e4"',
      'Basic realm="a",',
      'Basic realm="a",, x="b"',
      'Basic realm="a", REALM="b"',
      'realm="a"',
      'Basic realm ="a"',
      'Basic  realm="a"',
    ]
  ) {
    let isRefused = false;
    try {
      parseChallenges(text);
    } catch {
      isRefused = true;
    }
    isTrue(isRefused, text);
  }
});

Deno.test("RFC 6750 §3.1: without a credential both ways in are named, and no error", () => {
  deepStrictEqual(parsed("unauthenticated"), [
    { scheme: "Bearer", parameters: { realm: "portcullis", resource_metadata: METADATA } },
    { scheme: "DPoP", parameters: { algs: ALGORITHMS.join(" ") } },
  ]);
  deepStrictEqual(parsed("sign_in_refused"), parsed("unauthenticated"));
});

Deno.test("an error stands with the scheme that the credential came by, and with no other", () => {
  for (const tokenError of ["invalid_token", "invalid_dpop_proof", "use_dpop_nonce"] as const) {
    for (const scheme of [undefined, "Bearer", "DPoP"] as const) {
      const [bearer, dpop, ...others] = parsed("unauthenticated", { tokenError, ...(scheme && { scheme }) });
      deepStrictEqual([bearer?.scheme, dpop?.scheme, others], ["Bearer", "DPoP", []]);
      strictEqual(bearer?.parameters.error, scheme === "DPoP" ? undefined : tokenError);
      strictEqual(dpop?.parameters.error, scheme === "DPoP" ? tokenError : undefined);
      strictEqual(bearer?.parameters.resource_metadata, METADATA);
      strictEqual(dpop?.parameters.algs, ALGORITHMS.join(" "));
    }
  }
});

Deno.test("RFC 9449 §7.1: the algorithms are those that proofs are checked with, none of them symmetric", () => {
  const [, dpop] = parsed("unauthenticated");
  const named = dpop?.parameters.algs?.split(" ") ?? [];
  deepStrictEqual(named, ALGORITHMS);
  isTrue(named.includes("EdDSA") && named.includes("ES256"));
  for (const algorithm of named) isTrue(/^(?:Ed|ES|RS|PS)/.test(algorithm), algorithm);
});

Deno.test("RFC 6749 §5.2: a client that was refused is asked for Basic", () => {
  deepStrictEqual(parsed("client_refused"), [{ scheme: "Basic", parameters: { realm: "portcullis" } }]);
  deepStrictEqual(
    parsed("client_refused", { tokenError: "invalid_token", scheme: "DPoP" }),
    parsed("client_refused"),
  );
});

Deno.test("RFC 6750 §3.1: a 403 names the scope that is missing, whichever of all actions it is", () => {
  for (const scopeNeeded of Object.keys(ACTIONS)) {
    for (const kind of ["forbidden", "scope_insufficient"] as const) {
      for (const scheme of ["Bearer", "DPoP"] as const) {
        deepStrictEqual(parsed(kind, { scopeNeeded, scheme }), [
          { scheme, parameters: { realm: "portcullis", error: "insufficient_scope", scope: scopeNeeded } },
        ]);
      }
      deepStrictEqual(parsed(kind, { scopeNeeded }), parsed(kind, { scopeNeeded, scheme: "Bearer" }));
    }
  }
  strictEqual(challengeOf("forbidden"), undefined);
});

Deno.test("RFC 9110 §15.5.2: every 401 has a challenge, and nothing but 401 and 403 has one", () => {
  for (const [kind, { status }] of Object.entries(FAULT_TABLE)) {
    const challenge = challengeOf(kind as FaultKind, {
      scopeNeeded: "user:read",
      tokenError: "invalid_token",
      scheme: "Bearer",
    });
    strictEqual(challenge !== undefined, status === 401 || status === 403, kind);
    if (challenge !== undefined) parseChallenges(challenge);
  }
});

Deno.test("ASVS V1.2.1: nothing that a caller or the log is told gets into a challenge", () => {
  const hostile = '"\r\nSet-Cookie: a=b, Evil realm="x';
  for (const [kind, { status }] of Object.entries(FAULT_TABLE)) {
    const details: FaultDetails = {
      tokenError: "invalid_token",
      scopeNeeded: "model:infer",
      detail: hostile,
      fields: [{ path: hostile, message: hostile }],
      allow: [hostile],
      cause: new Error(hostile),
    };
    const plain = challengeOf(kind as FaultKind, { tokenError: "invalid_token", scopeNeeded: "model:infer" });
    const challenge = challenges(PUBLIC_URL)(new Fault(kind as FaultKind, hostile, details), status);
    strictEqual(challenge, plain);
    if (challenge !== undefined) {
      strictEqual(new Headers({ "WWW-Authenticate": challenge }).get("www-authenticate"), challenge);
    }
  }
});

Deno.test("RFC 9728 §5.1: the metadata is where clients reach this server, with its port and as an address of numbers too", () => {
  for (
    const publicUrl of [
      "http://127.0.0.1:8000",
      "https://[2001:db8::1]:8443",
      "https://xn--bcher-kva.example",
    ]
  ) {
    const [bearer] = parsed("unauthenticated", {}, publicUrl);
    const address = bearer?.parameters.resource_metadata ?? "";
    strictEqual(address, `${publicUrl}/.well-known/oauth-protected-resource`);
    strictEqual(new URL(address).href, address);
  }
});
