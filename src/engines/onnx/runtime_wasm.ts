// Runtime wasm: where the ONNX runtime's machine code lies. Whoever opens the engine reads it; a worker cannot.

/** onnxruntime-web's single file for the CPU, beside the modules that the inference worker imports. */
export const runtimeWasmUrl = new URL(
  "../../../node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm",
  import.meta.url,
);
