// Neighbour tables from a bitmap index, whose layout `index.cu` describes. `count` points to the number of
// rows that hold anything; launches may cover more.

#include "../device.cuh"

struct Grid { int z, y, x, words; };  // cells along each axis, words a line

__device__ __forceinline__ int line_of(Grid g, int b, int z, int y) { return (b * g.z + z) * g.y + y; }

// table[k * pitch + o] = row of cell `site * stride - padding + offset * dilation`, or -1.
// masks[o / 32 * mask_words + k / 32], bit k % 32: does any site of the 32 see something through
// offset k? Rows from `most_rows` on count as absent. One thread a site; rows of x are read by one or two words for all their offsets.
// KZ, KY, KX are set where a kernel's size is known and (KX - 1) * dx <= 32: all words are then
// asked for at once.
#ifdef KZ
extern "C" __global__ void fill_table(
    const int4* sites, const int* count, int capacity, const u32* words, const int* rank,
    int Z, int Y, int X, int W,
    int, int, int, int sz, int sy, int sx, int pz, int py, int px, int dz, int dy, int dx,
    int most_rows, int* table, int pitch, u32* masks, int mask_words) {
  const int o = blockIdx.x * blockDim.x + threadIdx.x;
  int4 c = o < capacity ? sites[o] : make_int4(0, 0, 0, 0);  // asked for beside the count
  const int n = min(*count, capacity);
  if ((o & ~31) >= n) return;
  const bool alive = o < n;
  if (!alive) c = make_int4(0, 0, 0, 0);  // what lies there means nothing
  Grid g{Z, Y, X, W};
  const int z0 = c.y * sz - pz, y0 = c.z * sy - py, x0 = c.w * sx - px;
  // The cells of a row of the kernel lie in 64 bits, from bit `shift` on. Cells beyond the grid are never set.
  const int word = x0 >> 5, shift = x0 & 31;
  const bool low = alive && word >= 0 && word < W, high = alive && word + 1 < W && shift + (KX - 1) * dx >= 32;
  u32 bits[KZ * KY], more[KZ * KY];
  int row[KZ * KY];
#pragma unroll
  for (int i = 0; i < KZ * KY; i++) {
    const int z = z0 + i / KY * dz, y = y0 + i % KY * dy;
    const bool inside = z >= 0 && z < Z && y >= 0 && y < Y;
    const long long at = (long long)line_of(g, c.x, z, y) * W + word;
    bits[i] = inside && low ? words[at] : 0;
    more[i] = inside && high ? words[at + 1] : 0;
  }
#pragma unroll
  for (int i = 0; i < KZ * KY; i++) {
    // Rows are numbered along a line: one rank serves both words.
    const long long at = (long long)line_of(g, c.x, z0 + i / KY * dz, y0 + i % KY * dy) * W + word;
    row[i] = bits[i] | more[i] ? rank[bits[i] ? at : at + 1] : 0;
  }
  u32 mask = 0;
  int* to = table + o;
#pragma unroll
  for (int i = 0; i < KZ * KY; i++) {
    const u64 both = (u64)more[i] << 32 | bits[i], seen = both >> shift;
    const int first = row[i] + __popc(bits[i] & ((1u << shift) - 1));
#pragma unroll
    for (int j = 0; j < KX; j++, to += pitch) {
      const int k = i * KX + j;
      int found = first + __popcll(seen & ((1ull << j * dx) - 1));
      if (!(seen >> j * dx & 1) || found >= most_rows) found = -1;
      if (alive) *to = found;
      if (__any_sync(~0u, found >= 0)) mask |= 1u << (k & 31);
      if ((k & 31) == 31 || k == KZ * KY * KX - 1) {
        if ((o & 31) == 0) masks[(o >> 5) * mask_words + (k >> 5)] = mask;
        mask = 0;
      }
    }
  }
}
#else
extern "C" __global__ void fill_table(
    const int4* sites, const int* count, int capacity, const u32* words, const int* rank,
    int Z, int Y, int X, int W,
    int kz, int ky, int kx, int sz, int sy, int sx, int pz, int py, int px, int dz, int dy, int dx,
    int most_rows, int* table, int pitch, u32* masks, int mask_words) {
  int n = min(*count, capacity);
  int o = blockIdx.x * blockDim.x + threadIdx.x;
  if ((o & ~31) >= n) return;
  bool alive = o < n;
  int4 c = alive ? sites[o] : make_int4(0, 0, 0, 0);
  Grid g{Z, Y, X, W};
  int z0 = c.y * sz - pz, y0 = c.z * sy - py, x0 = c.w * sx - px;
  u32 mask = 0;
  int k = 0;
  for (int a = 0; a < kz; a++) {
    int z = z0 + a * dz;
#pragma unroll 3
    for (int b = 0; b < ky; b++) {
      int y = y0 + b * dy;
      bool ok = alive && z >= 0 && z < Z && y >= 0 && y < Y;
      long long line = (long long)line_of(g, c.x, z, y) * W;
      int word = -1, ahead = 0;
      u32 bits = 0;
#pragma unroll 3
      for (int d = 0; d < kx; d++, k++) {
        int x = x0 + d * dx, row = -1;
        if (ok && x >= 0 && x < X) {
          if ((x >> 5) != word) {
            word = x >> 5;
            bits = words[line + word];
            if (bits) ahead = rank[line + word];
          }
          u32 bit = 1u << (x & 31);
          if (bits & bit) row = ahead + __popc(bits & (bit - 1));
        }
        if (row >= most_rows) row = -1;
        if (alive) table[(long long)k * pitch + o] = row;
        if (__any_sync(~0u, row >= 0)) mask |= 1u << (k & 31);
        if ((k & 31) == 31) {
          if ((o & 31) == 0) masks[(o >> 5) * mask_words + (k >> 5)] = mask;
          mask = 0;
        }
      }
    }
  }
  if ((k & 31) && (o & 31) == 0) masks[(o >> 5) * mask_words + (k >> 5)] = mask;
}

// out[k * pitch_out + table[k * pitch + o]] = o; `out` holds -1 before. `count` may be null: all columns hold
// anything.
extern "C" __global__ void transpose_table(
    const int* table, int pitch, int columns, const int* count, int* out, int pitch_out) {
  int o = blockIdx.x * blockDim.x + threadIdx.x;
  if (o >= (count ? min(*count, columns) : columns)) return;
  int row = table[(long long)blockIdx.y * pitch + o];
  if (row >= 0) out[(long long)blockIdx.y * pitch_out + row] = o;
}

// The masks of a table that came without.
extern "C" __global__ void mask_table(
    const int* table, int pitch, int columns, int offsets, u32* masks, int mask_words) {
  int o = blockIdx.x * blockDim.x + threadIdx.x;
  if ((o & ~31) >= columns) return;
  for (int first = 0; first < offsets; first += 32) {
    u32 mask = 0;
    for (int k = first; k < min(offsets, first + 32); k++) {
      int row = o < columns ? table[(long long)k * pitch + o] : -1;
      if (__any_sync(~0u, row >= 0)) mask |= 1u << (k - first);
    }
    if ((o & 31) == 0) masks[(o >> 5) * mask_words + (first >> 5)] = mask;
  }
}
#endif
