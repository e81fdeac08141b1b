// Tests of the permission flags: what the setting of a key service adds.
import { deepStrictEqual, ok } from "node:assert/strict";
import { permissionFlags } from "../../src/cli/permission_flags.ts";
import { parseConfig } from "../../src/config/config.ts";

function grantsOf(variables: Record<string, string>, files: readonly string[] = []): readonly string[] {
  const parsed = parseConfig({ variables, file: undefined, cores: 2, storeExists: () => true });
  ok(parsed.ok, JSON.stringify(parsed));
  return permissionFlags(parsed.config, files).flatMap((flag) => {
    const [name, values] = flag.split("=");
    return values === undefined ? [flag] : values.split(",").map((value) => `${name}=${value}`);
  });
}

Deno.test("a key service adds its host, the file of its authority and that of its token, and nothing else", () => {
  const without = grantsOf({});
  const variables = {
    PORTCULLIS_KEY_SERVICE_URL: "https://vault.example.com:8200",
    PORTCULLIS_KEY_SERVICE_TOKEN: "hvs.word",
    PORTCULLIS_KEY_SERVICE_CA_FILE: "/etc/vault/ca.pem",
  };
  deepStrictEqual(
    grantsOf(variables, ["/run/token"]).filter((grant) => !without.includes(grant)),
    ["--allow-net=vault.example.com:8200", "--allow-read=/run/token", "--allow-read=/etc/vault/ca.pem"],
  );
});
