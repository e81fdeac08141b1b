// Sentences: what people might embed, ten words each or nearly so.

export const SENTENCES = [
  "The train to the coast was late again this morning.",
  "Please send the signed contract back before Friday at noon.",
  "Heavy rain is expected in the northern valleys later tonight.",
  "How do I change the password of my old account?",
  "She bought a small blue bicycle for her youngest daughter.",
  "The committee will publish its final report early next year.",
  "Our customers ask for cheaper delivery and much longer opening hours.",
  "A quiet harbour lies behind the hills to the west.",
  "The printer on the second floor is out of paper.",
  "He learned to play the violin when he was seven.",
  "Stock prices fell sharply after the bank raised its rates.",
  "Mix the flour with warm water and a little salt.",
  "Which of these two phones has the better battery life?",
  "The museum is closed on Mondays and on public holidays.",
  "Astronomers found a planet that circles two very old stars.",
  "I would like to return the shoes that arrived yesterday.",
] as const;

/** The sentences in batches of `size`, each batch another one; as many batches as there are sentences. */
export function batchesOf(size: number): string[][] {
  return SENTENCES.map((_, start) =>
    Array.from({ length: size }, (_, offset) => SENTENCES[(start + offset) % SENTENCES.length] ?? "")
  );
}
