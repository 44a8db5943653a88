// Where a cell's bit lies, and how bits are set; `index.cu` describes the layout.

struct Grid { int z, y, x, words; };  // cells along each axis, words a line

__device__ __forceinline__ int line_of(Grid g, int b, int z, int y) { return (b * g.z + z) * g.y + y; }

#define SPAN 1024  // words

// Many cells share one word of a summary: it is looked at in the L2 cache, where others' bits are seen, and
// only who finds the bit missing adds it.
__device__ __forceinline__ void set_summary(u32* summary, long long word) {
  const u32 line = 1u << (word >> 5 & 31);
  if (!(__ldcg(&summary[word / SPAN]) & line)) atomicOr(&summary[word / SPAN], line);
}

// The first to set a bit of a word tells the summary.
__device__ __forceinline__ void set_bits(u32* words, u32* summary, long long word, u32 bits) {
  if (atomicOr(&words[word], bits) == 0) set_summary(summary, word);
}
