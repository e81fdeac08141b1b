// Environment: the only reader of environment variables, of portcullis.json and of secrets in files.
import { parseStrictJson } from "../encoding/strict_json.ts";
import { Fault } from "../faults/fault.ts";
import { calledHosts, type Config, type ConfigMistake, parseConfig } from "./config.ts";
import { type SettingName, SETTINGS, variableOf } from "./schema.ts";

/** An object of lists of objects, for upstreams and their models. */
const CONFIG_DEPTH_MAX = 8;
/** Where the settings file is when `PORTCULLIS_CONFIG` does not say. */
const CONFIG_FILE = "portcullis.json";
const NOT_READABLE_HERE = "outside what the process may read; start with: deno task serve";

/** Variables whose proxies the runtime uses for every `fetch`, even where the process may not read them. */
export const PROXY_VARIABLES = [
  "HTTP_PROXY",
  "HTTPS_PROXY",
  "ALL_PROXY",
  "http_proxy",
  "https_proxy",
  "all_proxy",
] as const;

/** Those of them that are set; an empty one names no proxy. */
export function setProxyVariables(): readonly string[] {
  return PROXY_VARIABLES.filter((name) => (readVariable(name) ?? "") !== "");
}

const TOKEN_VARIABLE = "PORTCULLIS_TOKEN";

/** What a command that asks a running server proves itself with; undefined where it is not set. */
export function readToken(): string | undefined {
  return readVariable(TOKEN_VARIABLE);
}

/** The settings, and the files they were read from (for `deno task flags`). */
export type EnvironmentOutcome =
  | { readonly ok: true; readonly config: Config; readonly files: readonly string[] }
  | { readonly ok: false; readonly mistakes: readonly ConfigMistake[] };

/** Reads all sources and parses them. Every mistake is in the outcome; nothing is thrown. */
export function readEnvironment(): EnvironmentOutcome {
  const mistakes: ConfigMistake[] = [];
  const files: string[] = [];
  const variables: Record<string, string> = {};
  for (const [name, value] of Object.entries(environment())) {
    if (name.startsWith("PORTCULLIS_")) variables[name] = value;
  }
  // No setting: commands bring it to a server.
  delete variables[TOKEN_VARIABLE];
  const file = readConfigFile(variables, files, mistakes);
  const secretFiles = readSecretFiles(variables, files, mistakes);
  const parsed = parseConfig({
    variables,
    secretFiles,
    file,
    cores: navigator.hardwareConcurrency,
    storeExists,
    proxyVariables: setProxyVariables(),
  });
  if (parsed.ok && parsed.config.upstreamProxy === "none" && calledHosts(parsed.config).length > 0) {
    // What cannot be seen may well be set.
    const hidden = PROXY_VARIABLES.find((name) => !mayRead(name));
    if (hidden !== undefined) mistakes.push({ where: hidden, what: `is ${NOT_READABLE_HERE}` });
  }
  // A secret whose file could not be read is not missing as well.
  const told = new Set(mistakes.map(({ where }) => where.replace(/_FILE$/, "")));
  if (!parsed.ok) {
    return { ok: false, mistakes: [...mistakes, ...parsed.mistakes.filter(({ where }) => !told.has(where))] };
  }
  return mistakes.length > 0 ? { ok: false, mistakes } : { ok: true, config: parsed.config, files };
}

/** Nothing where the process may not even look: what it lacks then shows, and is explained, at the first socket or file. */
function environment(): Record<string, string> {
  try {
    return Deno.env.toObject();
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) return {};
    throw error;
  }
}

function mayRead(variable: string): boolean {
  return Deno.permissions.querySync({ name: "env", variable }).state === "granted";
}

function readVariable(name: string): string | undefined {
  return mayRead(name) ? Deno.env.get(name) : undefined;
}

function readConfigFile(
  variables: Record<string, string>,
  files: string[],
  mistakes: ConfigMistake[],
): unknown {
  const named = variables.PORTCULLIS_CONFIG;
  delete variables.PORTCULLIS_CONFIG;
  const path = named ?? CONFIG_FILE;
  const read = readText(path);
  // Without the right to look, the file that nobody named counts as absent: the first socket then says what is missing.
  if (named === undefined && (read.error === "absent" || read.error === NOT_READABLE_HERE)) return undefined;
  if (read.error !== undefined) {
    mistakes.push({
      where: named === undefined ? path : "PORTCULLIS_CONFIG",
      what: `names ${path}, which is ${read.error}`,
    });
    return undefined;
  }
  files.push(path);
  const json = parseStrictJson(read.text, CONFIG_DEPTH_MAX);
  if (json.ok) return json.value;
  mistakes.push({ where: path, what: `is not strict JSON: ${json.reason}` });
  return undefined;
}

/** Replaces each `PORTCULLIS_X_FILE` of a secret X by `PORTCULLIS_X` with the file's content, less its last line end; the files. */
function readSecretFiles(
  variables: Record<string, string>,
  files: string[],
  mistakes: ConfigMistake[],
): Record<string, string> {
  const secretFiles: Record<string, string> = {};
  const secrets = (Object.keys(SETTINGS) as SettingName[]).filter((name) => SETTINGS[name].secret).map(
    variableOf,
  );
  const keys = Object.keys(variables).filter((name) =>
    /^PORTCULLIS_(?:UPSTREAM_[A-Z0-9_]+_KEY|AUDIT_SINK_KEY_[A-Z0-9_]+)_FILE$/.test(name)
  )
    .map((name) => name.slice(0, -"_FILE".length));
  for (const variable of [...secrets, ...keys]) {
    const path = variables[`${variable}_FILE`];
    if (path === undefined) continue;
    delete variables[`${variable}_FILE`];
    // An image sets variables that whoever runs it can empty and not unset.
    if (path === "") continue;
    if (variables[variable] !== undefined) {
      mistakes.push({ where: `${variable}_FILE`, what: `is set together with ${variable}; set one of them` });
      continue;
    }
    const read = readText(path);
    if (read.error !== undefined) {
      mistakes.push({ where: `${variable}_FILE`, what: `names ${path}, which is ${read.error}` });
      continue;
    }
    files.push(path);
    secretFiles[variable] = path;
    variables[variable] = withoutLineEnd(read.text);
  }
  return secretFiles;
}

/**
 * Reads a secret's file again, which another process may have written anew.
 *
 * @throws Fault `unavailable` when it cannot be read
 */
export function readSecretFile(path: string): string {
  const read = readText(path);
  if (read.error === undefined) return withoutLineEnd(read.text);
  throw new Fault("unavailable", `Cannot read ${path} again: it is ${read.error}`);
}

function withoutLineEnd(text: string): string {
  return text.replace(/\r?\n$/, "");
}

type ReadText = { readonly text: string; readonly error?: undefined } | { readonly error: string };

function readText(path: string): ReadText {
  // It becomes part of a permission flag: see `permissionFlags()`.
  if (/[\s,]|^-/.test(path)) return { error: "no path without spaces and commas" };
  try {
    return { text: Deno.readTextFileSync(path) };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return { error: "absent" };
    if (error instanceof Deno.errors.NotCapable) {
      return { error: NOT_READABLE_HERE };
    }
    return { error: "not readable" };
  }
}

function storeExists(dataDir: string): boolean {
  try {
    return Deno.statSync(storeFile(dataDir)).isFile;
  } catch {
    return false;
  }
}

/** Where the store of a data folder is. */
export function storeFile(dataDir: string): string {
  return `${dataDir}/portcullis.db`;
}

/** Where what is limited is counted in a data folder. */
export function limitsFile(dataDir: string): string {
  return `${dataDir}/limits.db`;
}
