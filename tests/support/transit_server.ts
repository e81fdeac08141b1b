// Transit server: the part of the transit API of HashiCorp Vault and OpenBao that a master key needs, with real keys in memory.
import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import { Buffer } from "node:buffer";
import type { Certificate } from "./self_signed_certificate.ts";

/** What a token may do. */
export interface TransitPolicy {
  /** Paths below /v1/ on which it has "update", such as "transit/encrypt/portcullis". */
  readonly update: readonly string[];
}

export interface TransitServer {
  readonly url: string;
  /** All calls so far. */
  readonly calls: readonly {
    readonly path: string;
    readonly token: string;
    readonly namespace: string | null;
  }[];
  /** Lets a token in. */
  allow(token: string, policy: TransitPolicy): void;
  revoke(token: string): void;
  /** `vault write -f transit/keys/NAME`: makes the key, AES-256-GCM. */
  makeKey(name: string): void;
  /** `vault write -f transit/keys/NAME/rotate`. */
  rotate(name: string): void;
  /** `vault write transit/keys/NAME/config min_decryption_version=N`. */
  setMinDecryptionVersion(name: string, version: number): void;
  /** `vault operator seal`; `unseal` undoes it. */
  seal(): void;
  unseal(): void;
  /** Answers every call so from now on; undefined ends it. */
  answers(scripted: ((request: Request) => Response | Promise<Response>) | undefined): void;
  close(): Promise<void>;
}

export interface TransitServerOptions {
  readonly certificate?: Certificate;
  readonly port?: number;
  readonly namespace?: string;
}

interface Key {
  /** Version 1 first. */
  readonly versions: Uint8Array[];
  minDecryptionVersion: number;
}

/** Starts one on a free port of loopback. It has no keys and lets nobody in. */
export function startTransitServer(options: TransitServerOptions = {}): TransitServer {
  const keys = new Map<string, Key>();
  const tokens = new Map<string, TransitPolicy>();
  const calls: { path: string; token: string; namespace: string | null }[] = [];
  let sealed = false;
  let scripted: ((request: Request) => Response | Promise<Response>) | undefined;

  async function answer(request: Request): Promise<Response> {
    const path = new URL(request.url).pathname.replace(/^\/v1\//, "");
    const token = request.headers.get("x-vault-token") ?? "";
    const namespace = request.headers.get("x-vault-namespace");
    calls.push({ path, token, namespace });
    if (scripted !== undefined) return await scripted(request);
    if (sealed) return errors(503, "Vault is sealed");
    const policy = tokens.get(token);
    if (policy === undefined) return errors(403, "permission denied", "invalid token");
    if (!policy.update.includes(path)) return errors(403, "1 error occurred:\n\t* permission denied\n\n");
    const [, act, name = ""] = /^transit\/(encrypt|decrypt)\/([\w-]+)$/.exec(path) ?? [];
    if (act === undefined || request.method !== "POST" || namespace !== (options.namespace ?? null)) {
      return errors(404, `no handler for route "${path}". route entry not found.`);
    }
    const key = keys.get(name);
    if (key === undefined) return errors(400, "encryption key not found");
    const body = await request.json();
    const associatedData = Buffer.from(body.associated_data ?? "", "base64");
    return act === "encrypt"
      ? encrypt(key, Buffer.from(body.plaintext, "base64"), associatedData)
      : decrypt(key, String(body.ciphertext), associatedData);
  }

  const tls = options.certificate === undefined
    ? {}
    : { cert: options.certificate.certificatePem, key: options.certificate.privateKeyPem };
  const server = Deno.serve(
    { hostname: "127.0.0.1", port: options.port ?? 0, onListen() {}, ...tls },
    answer,
  );
  const { port } = server.addr as Deno.NetAddr;

  const keyNamed = (name: string): Key => {
    const key = keys.get(name);
    if (key === undefined) throw new Error(`there is no key ${name}`);
    return key;
  };
  return {
    url: options.certificate === undefined ? `http://127.0.0.1:${port}` : `https://localhost:${port}`,
    calls,
    allow: (token, policy) => void tokens.set(token, policy),
    revoke: (token) => void tokens.delete(token),
    makeKey: (name) => void keys.set(name, { versions: [randomBytes(32)], minDecryptionVersion: 1 }),
    rotate: (name) => void keyNamed(name).versions.push(randomBytes(32)),
    setMinDecryptionVersion: (name, version) => void (keyNamed(name).minDecryptionVersion = version),
    seal: () => void (sealed = true),
    unseal: () => void (sealed = false),
    answers: (script) => void (scripted = script),
    close: () => server.shutdown(),
  };
}

/** The policy that docs/vault.md tells operators to write. */
export function masterKeyPolicy(name: string): TransitPolicy {
  return { update: [`transit/encrypt/${name}`, `transit/decrypt/${name}`] };
}

function encrypt({ versions }: Key, plaintext: Uint8Array, associatedData: Uint8Array): Response {
  const version = versions.length;
  const nonce = randomBytes(12);
  const cipher = createCipheriv("aes-256-gcm", versions[version - 1] ?? new Uint8Array(), nonce);
  cipher.setAAD(associatedData);
  const sealed = Buffer.concat([nonce, cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
  return data({ ciphertext: `vault:v${version}:${sealed.toString("base64")}`, key_version: version });
}

function decrypt(key: Key, ciphertext: string, associatedData: Uint8Array): Response {
  const [, version, base64 = ""] = /^vault:v(\d+):(.+)$/.exec(ciphertext) ?? [];
  const raw = key.versions[Number(version) - 1];
  if (raw === undefined) return errors(400, "invalid ciphertext: no prefix");
  if (Number(version) < key.minDecryptionVersion) {
    return errors(400, "ciphertext or signature version is disallowed by policy (too old)");
  }
  const sealed = Buffer.from(base64, "base64");
  const decipher = createDecipheriv("aes-256-gcm", raw, sealed.subarray(0, 12));
  decipher.setAAD(associatedData);
  decipher.setAuthTag(sealed.subarray(-16));
  try {
    const plaintext = Buffer.concat([decipher.update(sealed.subarray(12, -16)), decipher.final()]);
    return data({ plaintext: plaintext.toString("base64") });
  } catch {
    return errors(400, "cipher: message authentication failed");
  }
}

function data(fields: Record<string, unknown>): Response {
  return Response.json({
    request_id: crypto.randomUUID(),
    lease_id: "",
    renewable: false,
    lease_duration: 0,
    data: fields,
    warnings: null,
  });
}

function errors(status: number, ...messages: readonly string[]): Response {
  return Response.json({ errors: messages }, { status });
}
