// Authentication cases: each kind of credential at the single entrance, beside the bare cryptography that it cannot do without.
import { createHmac, hash } from "node:crypto";
import { calculateJwkThumbprint, exportJWK, generateKeyPair, importJWK, jwtVerify, SignJWT } from "jose";
import type { Presented } from "../src/identity/authenticate.ts";
import { systemClock } from "../src/time/clock.ts";
import type { BenchIdentity } from "./bench_identity.ts";

/** Does one thing once. */
export type Call = () => unknown;

/** Makes the calls of a round, with all that they need, before the time is taken. */
export type Contestant = (calls: number) => Promise<readonly Call[]>;

export interface AuthenticationCase {
  readonly what: string;
  readonly ours: Contestant;
  readonly bare: Contestant;
  /** A round's: long enough to be measured, short enough to be one of many. */
  readonly calls: number;
}

const METHOD = "POST";
const PATH = "/v1/embeddings";
const DAY_MS = 86_400_000;
const KNOWN_MAX = 10_000;

/** Prepares the cases for one user with one session, one API key and one key to prove possession of. */
export async function openAuthenticationCases(
  { identity, publicUrl, users: [user] }: BenchIdentity,
): Promise<readonly AuthenticationCase[]> {
  if (user === undefined) throw new Error("Cannot measure authentication: there is no user");
  const { accessTokens, apiKeys, proofs, sessions, signingKeys } = identity;
  const { session } = await sessions.open({ userId: user.id, network: "127.0.0.1", boundTo: null });
  const verifyKey = signingKeys.publicKey(signingKeys.active().keyId);
  if (verifyKey === undefined) throw new Error("Cannot measure authentication: there is no signing key");
  const proofPair = await generateKeyPair("ES256");
  const jwk = await exportJWK(proofPair.publicKey);
  // As keys come from others. One of a pair that was generated here takes twice as long to verify with.
  const proofKey = await importJWK(jwk, "ES256");
  const thumbprint = await calculateJwkThumbprint(jwk);
  const { text: apiKey } = await apiKeys.create({
    name: "bench",
    ownerId: user.id,
    scopes: ["model:infer"],
    addresses: [],
    boundTo: null,
    expiresAtMs: systemClock.now() + DAY_MS,
    seenByOthers: false,
  });

  const issue = async (boundTo: string | null): Promise<string> =>
    (await accessTokens.issue({ subject: user.id, session: session.id, scope: null, boundTo })).token;
  const prove = (token: string): Promise<string> =>
    new SignJWT({
      htm: METHOD,
      htu: `${publicUrl}${PATH}`,
      ath: hash("sha256", token, "base64url"),
      nonce: proofs.nonce(),
    }).setProtectedHeader({ typ: "dpop+jwt", alg: "ES256", jwk }).setJti(crypto.randomUUID())
      .setIssuedAt().sign(proofPair.privateKey);
  const authenticate = (authorization: string, proof: string | null = null): Call => {
    const presented: Presented = {
      authorization,
      proof,
      method: METHOD,
      path: PATH,
      address: [127, 0, 0, 1],
    };
    return async () => {
      const found = await identity.authenticate(presented);
      if (!found.ok) throw new Error(`Cannot trust a round: authenticate() said ${found.reason}`);
    };
  };
  const verifyToken = (token: string) =>
    jwtVerify(token, verifyKey, {
      algorithms: ["EdDSA"],
      typ: "at+jwt",
      issuer: publicUrl,
      audience: publicUrl,
    });
  const verifyProof = (proof: string) =>
    jwtVerify(proof, proofKey, { algorithms: ["ES256"], typ: "dpop+jwt" });

  return [
    {
      what: "access token, never seen before | jose: EdDSA",
      calls: 200,
      ours: (calls) => each(calls, async () => authenticate(`Bearer ${await issue(null)}`)),
      bare: (calls) =>
        each(calls, async () => {
          const token = await issue(null);
          return () => verifyToken(token);
        }),
    },
    {
      what: "access token, seen before | SHA-256 and a Map",
      calls: 5000,
      async ours(calls) {
        const call = authenticate(`Bearer ${await issue(null)}`);
        await call();
        return Array<Call>(calls).fill(call);
      },
      async bare(calls) {
        const token = await issue(null);
        const known = new Map(
          Array.from({ length: KNOWN_MAX }, (_, index) => [hash("sha256", `${index}`, "base64"), index]),
        );
        known.set(hash("sha256", token, "base64"), KNOWN_MAX);
        return Array<Call>(calls).fill(() => known.get(hash("sha256", token, "base64")));
      },
    },
    {
      what: "API key, seen before | HMAC-SHA-256",
      calls: 3000,
      async ours(calls) {
        const call = authenticate(`Bearer ${apiKey}`);
        await call();
        return Array<Call>(calls).fill(call);
      },
      bare(calls) {
        const key = crypto.getRandomValues(new Uint8Array(32));
        const call: Call = () => createHmac("sha256", key).update(apiKey).digest();
        return Promise.resolve(Array<Call>(calls).fill(call));
      },
    },
    {
      what: "bound token never seen, with proof | jose: EdDSA, ES256",
      calls: 100,
      ours: (calls) =>
        each(calls, async () => {
          const token = await issue(thumbprint);
          return authenticate(`DPoP ${token}`, await prove(token));
        }),
      bare: (calls) =>
        each(calls, async () => {
          const token = await issue(thumbprint);
          const proof = await prove(token);
          return async () => {
            await verifyToken(token);
            await verifyProof(proof);
          };
        }),
    },
    {
      what: "bound token seen before, with proof | jose: ES256",
      calls: 100,
      async ours(calls) {
        const token = await issue(thumbprint);
        await authenticate(`DPoP ${token}`, await prove(token))();
        return await each(calls, async () => authenticate(`DPoP ${token}`, await prove(token)));
      },
      async bare(calls) {
        const token = await issue(thumbprint);
        return await each(calls, async () => {
          const proof = await prove(token);
          return () => verifyProof(proof);
        });
      },
    },
  ];
}

/** One after the other. */
async function each(calls: number, make: () => Promise<Call>): Promise<Call[]> {
  const made: Call[] = [];
  while (made.length < calls) made.push(await make());
  return made;
}
