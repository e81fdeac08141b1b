// Vector numbers: from float32 to what JSON.stringify takes.

/** The components of a vector as plain numbers. A loop: `Array.from` walks an iterator and takes twenty times as long. */
export function vectorNumbers(vector: Float32Array): number[] {
  const numbers = new Array<number>(vector.length);
  for (let index = 0; index < vector.length; index++) numbers[index] = vector[index] ?? 0;
  return numbers;
}
