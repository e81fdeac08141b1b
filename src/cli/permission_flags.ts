// Permission flags: exactly what the server needs under given settings, as Deno's command-line flags.
import { type Config, hostAndPort, outgoingHosts } from "../config/config.ts";
import { PROXY_VARIABLES } from "../config/environment.ts";

/** Flags that close what Deno leaves open: prompts, downloads, changes of the lock file. */
const FIXED_FLAGS = ["--no-prompt", "--cached-only", "--frozen", "--no-remote"] as const;
/** Workers load their modules from `src` at run time; the ONNX runtime's machine code is read and handed to them. */
const CODE_PATHS = ["src", "node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm"] as const;

/**
 * The flags of `deno run … src/main.ts`.
 *
 * @param files settings and secret files that were read
 */
export function permissionFlags(config: Config, files: readonly string[]): string[] {
  const certificates = [...config.upstreams, ...config.issuers].flatMap(({ caFile }) => caFile ?? []);
  const read = [
    config.dataDir,
    config.modelsDir,
    "portcullis.json",
    ...CODE_PATHS,
    ...files,
    ...certificates,
    ...(config.redisCaFile === undefined ? [] : [config.redisCaFile]),
  ];
  const net = [hostAndPort(config.host, config.port), ...outgoingHosts(config)];
  return [
    ...FIXED_FLAGS,
    `--allow-net=${[...new Set(net)].join(",")}`,
    `--allow-read=${[...new Set(read)].join(",")}`,
    `--allow-write=${config.dataDir}`,
    `--allow-env=${["PORTCULLIS_*", ...PROXY_VARIABLES].join(",")}`,
    "--ignore-env",
  ];
}
