// Self-signed certificate: an X.509 certificate for localhost (RFC 5280), made when a test needs one, so that none expires here.

/** A certificate and its key. */
export interface Certificate {
  readonly certificatePem: string;
  readonly privateKeyPem: string;
}

/** Makes one for `localhost`: ECDSA P-256, valid from yesterday to tomorrow. */
export async function makeSelfSignedCertificate(): Promise<Certificate> {
  const keys = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, [
    "sign",
    "verify",
  ]);
  const publicKey = new Uint8Array(await crypto.subtle.exportKey("spki", keys.publicKey));
  const privateKey = new Uint8Array(await crypto.subtle.exportKey("pkcs8", keys.privateKey));
  const algorithm = der(SEQUENCE, oid(0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02)); // ecdsa-with-SHA256
  const name = der(
    SEQUENCE,
    der(SET, der(SEQUENCE, oid(0x55, 0x04, 0x03), der(UTF8_STRING, encode("localhost")))),
  ); // commonName
  const toBeSigned = der(
    SEQUENCE,
    der(CONTEXT_0, der(INTEGER, Uint8Array.of(2))), // version 3
    der(INTEGER, Uint8Array.of(1, ...crypto.getRandomValues(new Uint8Array(8)))),
    algorithm,
    name,
    der(SEQUENCE, time(-1), time(1)),
    name,
    publicKey,
    der(
      CONTEXT_3,
      der(
        SEQUENCE,
        // subjectAltName: DNS name localhost
        der(
          SEQUENCE,
          oid(0x55, 0x1d, 0x11),
          der(OCTET_STRING, der(SEQUENCE, der(CONTEXT_2_PLAIN, encode("localhost")))),
        ),
      ),
    ),
  );
  const signature = new Uint8Array(
    await crypto.subtle.sign({ name: "ECDSA", hash: "SHA-256" }, keys.privateKey, toBeSigned),
  );
  const certificate = der(
    SEQUENCE,
    toBeSigned,
    algorithm,
    // Web Crypto gives r and s side by side; X.509 wants them as two integers.
    der(
      BIT_STRING,
      Uint8Array.of(0),
      der(SEQUENCE, unsigned(signature.subarray(0, 32)), unsigned(signature.subarray(32))),
    ),
  );
  return { certificatePem: pem("CERTIFICATE", certificate), privateKeyPem: pem("PRIVATE KEY", privateKey) };
}

const INTEGER = 0x02,
  BIT_STRING = 0x03,
  OCTET_STRING = 0x04,
  UTF8_STRING = 0x0c,
  UTC_TIME = 0x17,
  SEQUENCE = 0x30,
  SET = 0x31,
  CONTEXT_2_PLAIN = 0x82,
  CONTEXT_0 = 0xa0,
  CONTEXT_3 = 0xa3;

/** Tag, length and content (X.690 §8.1). */
function der(tag: number, ...contents: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const length = contents.reduce((sum, content) => sum + content.length, 0);
  const head = length < 0x80
    ? [tag, length]
    : length < 0x100
    ? [tag, 0x81, length]
    : [tag, 0x82, length >> 8, length & 0xff];
  const whole = new Uint8Array(head.length + length);
  whole.set(head);
  let at = head.length;
  for (const content of contents) {
    whole.set(content, at);
    at += content.length;
  }
  return whole;
}

function oid(...bytes: readonly number[]): Uint8Array {
  return der(0x06, Uint8Array.from(bytes));
}

/** An integer that is not negative, in its shortest form (X.690 §8.3). */
function unsigned(bytes: Uint8Array): Uint8Array {
  let start = 0;
  while (start < bytes.length - 1 && bytes[start] === 0) start++;
  const short = bytes.subarray(start);
  return der(INTEGER, (short[0] ?? 0) >= 0x80 ? Uint8Array.of(0, ...short) : short);
}

function time(days: number): Uint8Array {
  const moment = new Date(Date.now() + days * 86_400_000).toISOString();
  return der(UTC_TIME, encode(`${moment.slice(2, 19).replace(/[-T:]/g, "")}Z`));
}

function encode(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function pem(label: string, bytes: Uint8Array): string {
  const lines = bytes.toBase64().match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`;
}
