// Neighbour tables from a bitmap index, whose layout `index.cu` describes. `count` points to the number of
// rows that hold anything; launches may cover more.

#include "../device.cuh"

struct Grid { int z, y, x, words; };  // cells along each axis, words a line

__device__ __forceinline__ int line_of(Grid g, int b, int z, int y) { return (b * g.z + z) * g.y + y; }

// table[k * pitch + o] = row of cell `site * stride - padding + offset * dilation`, or -1.
// masks[o / 32 * mask_words + k / 32], bit k % 32: does any site of the 32 see something through
// offset k? Rows from `most_rows` on count as absent. One thread a site; rows of x are read by one or two words
// for all their offsets.
// KZ, KY, KX are set where a kernel's size is known and (KX - 1) * dx <= 32: all words are then
// asked for at once. With WINDOW, the threads of a block, a table in order is written, alone or besides.
#ifdef KZ
#define LINES (KZ * KY)

struct Lookup {
  const u32* words;
  const int* rank;
  int Z, Y, X, W, sz, sy, sx, pz, py, px, dz, dy, dx, most_rows;
};

// Where a table goes; `order` is null where its columns are the sites.
struct Target {
  int* table;
  int pitch;
  u32* masks;
  int mask_words;
  int* order;
};

// What a site sees: of each row of the kernel the cells, from its first offset's on, and the first row.
struct Sight {
  u64 cells[LINES];
  int first[LINES];
  __device__ __forceinline__ void look(int4 c, bool alive, const Lookup& l) {
    if (!alive) c = make_int4(0, 0, 0, 0);  // what lies there means nothing
    Grid g{l.Z, l.Y, l.X, l.W};
    const int z0 = c.y * l.sz - l.pz, y0 = c.z * l.sy - l.py, x0 = c.w * l.sx - l.px;
    // The cells of a row of the kernel lie in 64 bits, from bit `shift` on. Cells beyond the grid are never set.
    const int word = x0 >> 5, shift = x0 & 31;
    const bool low = alive && word >= 0 && word < l.W;
    const bool high = alive && word + 1 < l.W && shift + (KX - 1) * l.dx >= 32;
    u32 bits[LINES], more[LINES];
#pragma unroll
    for (int i = 0; i < LINES; i++) {
      const int z = z0 + i / KY * l.dz, y = y0 + i % KY * l.dy;
      const bool inside = z >= 0 && z < l.Z && y >= 0 && y < l.Y;
      const long long at = (long long)line_of(g, c.x, z, y) * l.W + word;
      bits[i] = inside && low ? l.words[at] : 0;
      more[i] = inside && high ? l.words[at + 1] : 0;
    }
#pragma unroll
    for (int i = 0; i < LINES; i++) {
      // Rows are numbered along a line: one rank serves both words.
      const long long at = (long long)line_of(g, c.x, z0 + i / KY * l.dz, y0 + i % KY * l.dy) * l.W + word;
      first[i] = bits[i] | more[i] ? l.rank[bits[i] ? at : at + 1] : 0;
    }
#pragma unroll
    for (int i = 0; i < LINES; i++) {
      cells[i] = ((u64)more[i] << 32 | bits[i]) >> shift;
      first[i] += __popc(bits[i] & ((1u << shift) - 1));
    }
  }
  __device__ __forceinline__ int row(int k, const Lookup& l) const {
    const int i = k / KX, bit = k % KX * l.dx, found = first[i] + __popcll(cells[i] & ((1ull << bit) - 1));
    return cells[i] >> bit & 1 && found < l.most_rows ? found : -1;
  }
};

__device__ __forceinline__ void write_column(const Sight& sight, int o, bool alive, const Lookup& l, Target to) {
  u32 mask = 0;
  int* place = to.table + o;
#pragma unroll
  for (int k = 0; k < LINES * KX; k++, place += to.pitch) {
    const int row = sight.row(k, l);
    if (alive) *place = row;
    if (__any_sync(~0u, row >= 0)) mask |= 1u << (k & 31);
    if ((k & 31) == 31 || k == LINES * KX - 1) {
      if ((o & 31) == 0 && alive) to.masks[(o >> 5) * to.mask_words + (k >> 5)] = mask;
      mask = 0;
    }
  }
}

#ifdef WINDOW
#define OFFSETS (LINES * KX)
#include "order.cuh"
#define TOGETHER WINDOW  // threads that all stay where any has a site
#else
#define TOGETHER 32
#endif

__device__ __forceinline__ void fill(int4 c, int o, int n, const Lookup& l, Target plain, Target ordered) {
  Sight sight;
  sight.look(c, o < n, l);
#ifdef WINDOW
  __shared__ Ordering shared;
  u32 mask = 0;
#pragma unroll
  for (int k = 0; k < OFFSETS; k++) mask |= (u32)(sight.row(k, l) >= 0) << k;
  write_in_order(
      shared, o - (int)threadIdx.x, n, mask, [&](int k) { return sight.row(k, l); }, ordered.table, ordered.pitch,
      ordered.masks, ordered.order);
  if (!plain.table) return;
#endif
  write_column(sight, o, o < n, l, plain);
}

extern "C" __global__ void __launch_bounds__(THREADS) fill_table(
    const int4* sites, const int* count, int capacity, const u32* words, const int* rank,
    int Z, int Y, int X, int W,
    int, int, int, int sz, int sy, int sx, int pz, int py, int px, int dz, int dy, int dx,
    int most_rows, int* table, int pitch, u32* masks, int mask_words, int* in_order, int order_pitch, u32* order_masks,
    int* order) {
  await_earlier();
  const int o = blockIdx.x * blockDim.x + threadIdx.x;
  const int4 c = o < capacity ? sites[o] : make_int4(0, 0, 0, 0);  // asked for beside the count
  const int n = min(*count, capacity);
  if (o / TOGETHER * TOGETHER >= n) return;
  const Lookup l{words, rank, Z, Y, X, W, sz, sy, sx, pz, py, px, dz, dy, dx, most_rows};
  fill(c, o, n, l, {table, pitch, masks, mask_words, nullptr}, {in_order, order_pitch, order_masks, 1, order});
}

// Place of the set bit before which there are n others.
__device__ __forceinline__ int place_of_bit(u32 bits, int n) {
  int place = 0;
#pragma unroll
  for (int width = 16; width; width /= 2) {
    const int below = __popc(bits >> place & ((1u << width) - 1));
    if (n >= below) { n -= below; place += width; }
  }
  return place;
}

// The same for the voxels of a bitmap as `scan` left it, whose coordinates are written on the way. A warp takes
// 32 rows, which lie in so many words of the list at most.
extern "C" __global__ void __launch_bounds__(THREADS) fill_scanned(
    const u32* site_words, const int* site_rank, const int* listed, int listed_capacity, const int* tile_words,
    const int* totals, int site_z, int site_y, int site_w, int4* coordinates, int capacity, const u32* words,
    const int* rank, int Z, int Y, int X, int W, int sz, int sy, int sx, int pz, int py, int px, int dz, int dy, int dx,
    int most_rows, int* table, int pitch, u32* masks, int mask_words, int* in_order, int order_pitch, u32* order_masks,
    int* order) {
  await_earlier();
  const int o = blockIdx.x * blockDim.x + threadIdx.x, lane = o & 31, tile = o & ~31;
  int place = tile < capacity ? tile_words[o >> 5] : 0;  // asked for beside the count
  const int n = min(totals[0], capacity), some = min(totals[1], listed_capacity);
  if (o / TOGETHER * TOGETHER >= n) return;
  // A lane looks at a word of the list, then learns from another which word holds its own row.
  place = tile < n ? min(place + lane, some - 1) : 0;
  const int word = listed[place];
  const u32 bits = site_words[word];
  const int row = site_rank[word], start = max(row - tile, 0);
  const u32 starts = __reduce_or_sync(~0u, start < 32 ? 1u << start : 0);
  const int from = max(__popc(starts & ((2u << lane) - 1)) - 1, 0);
  const int own_word = __shfl_sync(~0u, word, from), own_start = __shfl_sync(~0u, row, from);
  const u32 own_bits = __shfl_sync(~0u, bits, from);
  const int line = own_word / site_w, plane = line / site_y, frame = plane / site_z;
  const int4 c = make_int4(
      frame, plane - frame * site_z, line - plane * site_y,
      (own_word - line * site_w) * 32 + place_of_bit(own_bits, o - own_start));
  if (o < n) coordinates[o] = c;
  const Lookup l{words, rank, Z, Y, X, W, sz, sy, sx, pz, py, px, dz, dy, dx, most_rows};
  fill(c, o, n, l, {table, pitch, masks, mask_words, nullptr}, {in_order, order_pitch, order_masks, 1, order});
}
#else
extern "C" __global__ void fill_table(
    const int4* sites, const int* count, int capacity, const u32* words, const int* rank,
    int Z, int Y, int X, int W,
    int kz, int ky, int kx, int sz, int sy, int sx, int pz, int py, int px, int dz, int dy, int dx,
    int most_rows, int* table, int pitch, u32* masks, int mask_words, int*, int, u32*, int*) {
  await_earlier();
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

// out[k * pitch_out + table[k * pitch + o]] = o; `out` holds -1 before.
extern "C" __global__ void transpose_table(
    const int* table, int pitch, int columns, int* out, int pitch_out) {
  int o = blockIdx.x * blockDim.x + threadIdx.x;
  if (o >= columns) return;
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
