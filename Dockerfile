# The server's image: Deno, its C library and the files that run. No shell, no package manager, no setuid file.
# How to build, run and upgrade it: docs/container.md.

# Whoever deploys pins the base: --build-arg BASE=docker.io/library/debian:bookworm-slim@sha256:…
ARG BASE=docker.io/library/debian:bookworm-slim

# Deno from npm, checked against a digest that stands here, and the few system files that it needs.
FROM ${BASE} AS deno
ARG DENO_VERSION=2.9.6
# For amd64. For arm64 pass what this prints: npm view @deno/linux-arm64-glibc@2.9.6 dist.integrity
ARG DENO_INTEGRITY=sha512-3md4TKLCuzsLDmfOoC5KN7NAZaxSVkMgm64vg6foD00JBADCpYS2/5QqXfzgnP5ZQz3iLP9vBQJtEgc116OAoQ==
# Only where npm is reached through a mirror; npm and Deno both read it.
ARG NPM_CONFIG_REGISTRY
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates npm \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /deno
RUN case "$(dpkg --print-architecture)" in amd64) cpu=x64 ;; arm64) cpu=arm64 ;; *) exit 1 ;; esac \
 && npm pack --silent "@deno/linux-${cpu}-glibc@${DENO_VERSION}" \
 && test "sha512-$(openssl dgst -sha512 -binary deno-*.tgz | base64 --wrap 0)" = "${DENO_INTEGRITY}" \
 && tar -xzf deno-*.tgz --strip-components 1 \
 && install -m 0755 deno /usr/local/bin/deno
# The package records let a scanner see which C library is inside.
RUN mkdir -p /system/var/lib/dpkg/status.d \
 && ldd /usr/local/bin/deno | grep -o '/[^ ]*' | xargs cp -L --parents --target-directory /system \
 && cp -L --parents /usr/local/bin/deno /etc/os-release /usr/share/doc/libc6/copyright \
      /usr/share/doc/libgcc-s1/copyright --target-directory /system \
 && for package in libc6 libgcc-s1; do dpkg-query -s "$package" > "/system/var/lib/dpkg/status.d/$package"; done \
 && mkdir -m 0700 /data

# The locked dependencies, the default model, and then only what the server loads of them.
FROM deno AS app
# Trust whom the system trusts, as npm does.
ENV DENO_TLS_CA_STORE=system
WORKDIR /app
COPY deno.json deno.lock ./
RUN deno install --frozen --quiet
COPY src src
COPY models models
RUN deno task setup
# Packages of the build and the tests go, then the parts of onnxruntime-web that its bundle for servers never imports, then
# TypeScript and source maps. "manual" has Deno take node_modules as it stands instead of completing it from the lock file.
RUN deno clean --except src/main.ts src/cli/cli.ts src/engines/onnx/*_worker.ts src/audit/*_worker.ts \
 && sed -i 's/"nodeModulesDir": "auto"/"nodeModulesDir": "manual"/' deno.json \
 && grep -q '"nodeModulesDir": "manual"' deno.json \
 && find node_modules/.deno/onnxruntime-web@*/node_modules/onnxruntime-web -type f ! -name package.json \
      ! -name ort.node.min.mjs ! -name ort-wasm-simd-threaded.mjs ! -name ort-wasm-simd-threaded.wasm -delete \
 && cd node_modules/.deno \
 && rm -rf @protobufjs+* protobufjs@* flatbuffers@* guid-typescript@* long@* platform@* @types+* undici-types@* \
 && find .. -type f \( -name '*.map' -o -name '*.ts' -o -name '*.mts' -o -name '*.cts' \) -delete \
 && find .. -xtype l -delete \
 && find .. -depth -type d -empty -delete

FROM scratch
COPY --from=deno /system /
COPY --from=deno --chown=10001:10001 /data /data
WORKDIR /app
COPY --from=app /app/node_modules node_modules
COPY --from=app /app/models models
COPY --from=app /app/deno.json /app/deno.lock ./
COPY --from=app /app/src src
# Secrets come as files. The first start reads PORTCULLIS_ADMIN_PASSWORD_FILE=/run/secrets/admin_password as well.
# MALLOC_ARENA_MAX: with an arena a thread the peak at the start was 530 MB, with two 420; with one, memory stays flat under load, at no cost
# that could be measured (`deno task soak`).
ENV DENO_NO_UPDATE_CHECK=1 \
    MALLOC_ARENA_MAX=1 \
    PORTCULLIS_MODE=production \
    PORTCULLIS_HOST=0.0.0.0 \
    PORTCULLIS_DATA_DIR=/data \
    PORTCULLIS_MASTER_KEY_FILE=/run/secrets/master_key \
    PORTCULLIS_SIGNING_KEY_FILE=/run/secrets/signing_key
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 \
  CMD ["/usr/local/bin/deno", "run", "--no-prompt", "--cached-only", "--no-remote", "--no-config", \
       "--allow-net=127.0.0.1:8000", "src/cli/health_check.ts", "http://127.0.0.1:8000/healthz"]
# What `deno task flags` prints for these settings; a test holds them against the code.
ENTRYPOINT ["/usr/local/bin/deno", "run", "--no-prompt", "--cached-only", "--frozen", "--no-remote", \
  "--allow-net=0.0.0.0:8000", \
  "--allow-read=/data,models,portcullis.json,src,node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm,/run/secrets/master_key,/run/secrets/signing_key,/run/secrets/admin_password", \
  "--allow-write=/data", "--allow-env=PORTCULLIS_*,HTTP_PROXY,HTTPS_PROXY,ALL_PROXY,http_proxy,https_proxy,all_proxy", \
  "--ignore-env", "src/main.ts"]
