// Tests of attack signatures: what is one in any disguise, what is none, and that no text costs more than others of its length.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { isProbe, LOOKED_AT_CHARACTERS } from "../../src/limits/attack_signatures.ts";
import { anyText } from "../support/any_text.ts";

const PATHS = String.raw`
  /.env /.env.production /api/.env /.git/config /.git/HEAD /.svn/entries /.aws/credentials /.ssh/id_rsa /.DS_Store /id_rsa
  /.vscode/sftp.json /.htpasswd /backup/.htaccess /wp-login.php /blog/wp-admin/ /wp-content/plugins/x /xmlrpc.php /phpmyadmin/
  /phpMyAdmin/index /cgi-bin/luci /cgi-bin/.%2e/.%2e/bin/sh /vendor/phpunit/phpunit/src/Util/PHP/eval-stdin.php /actuator/env
  /server-status /index.php /index.php/admin /a.php;x=1 /shell.jsp /default.aspx /HNAP1/ /boaform/admin/formLogin /dump.sql
  /_ignition/execute-solution /owa/auth/logon.aspx /solr/admin /backup.bak /WEB-INF/web.xml /nmaplowercheck1700000000
  /../../etc/passwd /..%2f..%2fetc%2fpasswd /%2e%2e/%2e%2e/x /%252e%252e/x /..\..\win.ini /static/..;/manager/html /a/..
  /%c0%ae%c0%ae/x /etc/passwd /proc/self/environ /x%00.json /<script>alert(1)</script> /%3Cscript%3E /$%7bjndi:ldap://x%7d
  /v1/models'-- /a%20union%20select%201`.trim().split(/\s+/);

const QUERIES = [
  ...String.raw`
  id=1%27%20OR%20%271%27=%271 id=1+UNION+SELECT+null id=1/**/union/**/all/**/select/**/1 id=1%09union%0Aselect%201 q=sleep(5)
  q=1;waitfor%20delay%20'0:0:5' q=information_schema.tables q=%3Cscript%3Ealert(1) q=<img%20src=x%20onerror=alert(1)>
  q=%253cscript%253e q=javascript:alert(1) x=$%7B$%7Blower:j%7Dndi:ldap:%7D file=../../../../etc/passwd file=..%2f..%2fx
  file=php://filter/convert.base64-encode url=http://169.254.169.254/latest cb=x.oastify.com cmd=/bin/sh
  s=index/think%5Capp/invokefunction&function=call_user_func_array -d+allow_url_include%3don`.trim().split(
    /\s+/,
  ),
  "id=1' or 1=1--",
  "x=${jndi:ldap://a/b}",
];

/** What is asked by mistake, out of curiosity, or by a browser. */
const HONEST = String.raw`
  / // /favicon.ico /robots.txt /sitemap.xml /index.html /apple-touch-icon.png /admin /v1 /v1/ /v1/model /v1/Models /v1/models/
  /v1//models /v1/./models /v1/. /v1/chat/completion /v1/v1/models /v1beta/models /v1/embedding /v1/models.json /api/v1/models
  /openai/v1/models /docs /swagger.json /openapi.yaml /metrics /health /status /login /graphql /.well-known /.wellknown/
  /.well-known/openid-configuration /.well-known/security.txt /.well-known/acme-challenge/x /v1/models/gpt-4.1-env
  /v1/models/meta-llama%2FLlama-3.1-8B-Instruct /v1/models/any%2Fmodel:1 /v1/models/%E0%AE%A4%E0%AE%AE /v1/models/sqlcoder-7b
  /v1/models/wizard-of-union-select /v2/health /oauth2/authorize /v1/environments /gitlab /v1/models/it%27s`
  .trim().split(/\s+/);

Deno.test("each path that nobody asks for honestly is a probe, in capitals and with its escapes escaped too", () => {
  for (const path of PATHS) {
    strictEqual(isProbe(path, ""), true, path);
    strictEqual(isProbe(path.toUpperCase(), ""), true, path.toUpperCase());
    strictEqual(isProbe(path.replaceAll("%", "%25"), "") || path.includes("%25"), true, path);
  }
});

Deno.test("each query with an injection is a probe, whatever route it is sent to", () => {
  for (const query of QUERIES) {
    strictEqual(isProbe("/v1/models", query), true, query);
    strictEqual(isProbe("/v1/models", `limit=5&after=a&${query.toUpperCase()}&b=c`), true, query);
  }
});

Deno.test("what is asked for by mistake is no probe", () => {
  for (const path of HONEST) strictEqual(isProbe(path, ""), false, path);
  for (
    const query of [
      "limit=50&after=usr_01k9",
      "q=O%27Brien",
      "model=a+b",
      "q=select+a+union",
      "access_token=x",
    ]
  ) {
    strictEqual(isProbe("/v1/models", query), false, query);
  }
});

/** Every route of the server: a test of its own holds this document to the route table. */
const routes = [
  ...Deno.readTextFileSync(`${import.meta.dirname}/../../docs/access.md`).matchAll(/`[A-Z]+ (\/[^`]*)`/g),
].map(([, path = ""]) =>
  path.replace("{id}", "usr_01k9zzzzzzzzzzzzzzzzzzzzzz").replace("{team}", "red").replace("{name}", "x")
);

Deno.test("property: no route is a probe, and none with a letter left out, doubled, swapped, of the other case or put at its end", () => {
  ok(routes.length > 40);
  for (const path of routes) strictEqual(isProbe(path, ""), false, path);
  const letter = fc.constantFrom(..."abcdefghijklmnopqrstuvwxyz0123456789-_/");
  fc.assert(
    fc.property(
      fc.constantFrom(...routes),
      fc.nat(),
      fc.constantFrom("leave out", "double", "swap", "case", "put", "append"),
      letter,
      (path, where, how, other) => {
        const at = 1 + where % path.length;
        const [before, here, after] = [path.slice(0, at), path.charAt(at), path.slice(at + 1)];
        const typo = how === "leave out"
          ? before + after
          : how === "double"
          ? before + here + here + after
          : how === "swap"
          ? before + after.slice(0, 1) + here + after.slice(1)
          : how === "case"
          ? before + here.toUpperCase() + after
          : how === "put"
          ? before + other + here + after
          : path + other;
        strictEqual(isProbe(typo, ""), false, typo);
      },
    ),
    { numRuns: 2000 },
  );
});

Deno.test("property: no text is too much for it, and it means the same within any other harmless one", () => {
  const place = fc.nat({ max: 500 });
  fc.assert(
    fc.property(anyText, anyText, fc.constantFrom(...QUERIES), place, (path, query, attack, spaces) => {
      strictEqual(typeof isProbe(path, query), "boolean");
      strictEqual(isProbe(path, `${"a".repeat(spaces)}&${attack}&${query}`), true);
      strictEqual(isProbe(`/${query.replaceAll("/", "")}/.git/config`, ""), true);
    }),
  );
});

Deno.test("what is looked at is bounded: nothing behind it changes the outcome", () => {
  const filler = "/" + "a".repeat(LOOKED_AT_CHARACTERS - 2);
  const attack = "/.git/config";
  strictEqual(isProbe(filler.slice(0, -attack.length) + attack, ""), true);
  strictEqual(isProbe(filler + attack, ""), false);
  strictEqual(isProbe("/v1", filler + "union select"), false);
  // The beginnings of signatures, as often as they fit and much more often.
  const texts = [
    "'",
    "/*",
    "/**",
    "%",
    "%2",
    "%25",
    "%2525",
    "../.",
    "union ",
    "union  all ",
    "' or ",
    "${",
    ".",
    "/.",
    "<",
  ];
  const outcomes = texts.map((text) =>
    [1, 4, 16].map((times) => isProbe(`/${text.repeat(times * LOOKED_AT_CHARACTERS / text.length)}`, ""))
  );
  for (const [index, [once, ...longer]] of outcomes.entries()) {
    deepStrictEqual(longer, [once, once], `repeated: ${texts[index]}`);
  }
});
