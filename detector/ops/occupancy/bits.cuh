// Where a cell's bit lies, and how bits are set; `index.cu` describes the layout.

struct Grid { int z, y, x, words; };  // cells along each axis, words a line

__device__ __forceinline__ int line_of(Grid g, int b, int z, int y) { return (b * g.z + z) * g.y + y; }

#define LINE 32    // words
#define SPAN 1024  // words

// Sets bits of a word; who sets the first tells that its line holds some, for thousands would else tell the same.
__device__ __forceinline__ void set_bits(u32* words, u8* lines, long long word, u32 bits) {
  if (atomicOr(&words[word], bits) == 0) lines[word / LINE] = 1;
}
