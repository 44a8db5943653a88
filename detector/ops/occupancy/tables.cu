// Neighbour tables from a bitmap index, whose layout `index.cu` describes. `count` points to the number of
// rows that hold anything; launches may cover more.

#include "../device.cuh"
#include "bits.cuh"
#include "sight.cuh"

// table[k * pitch + o] = row of cell `site * stride - padding + offset * dilation`, or -1.
// masks[o / 32 * mask_words + k / 32], bit k % 32: does any site of the 32 see something through
// offset k? Rows from `most_rows` on count as absent. One thread a site.
//
// Macros, where a kernel's size is known and (KX - 1) * DX < 32; otherwise none:
//   KZ, KY, KX   the kernel
//   DX           its dilation along x
//   THREADS      of a block
//   WINDOW       as many: a table in order is written (see `order.cuh`), and the plain one if it isn't null
#ifdef KZ
#define OFFSETS (KZ * KY * KX)
#ifdef WINDOW
#include "order.cuh"
#define TOGETHER WINDOW  // threads that all stay where any has a site
#else
#define TOGETHER 32
#endif

__device__ __forceinline__ void fill(
    int4 c, int o, int n, const Lookup& l, int* table, int pitch, u32* masks, int mask_words, int* in_order,
    int order_pitch, u32* order_masks, int* order) {
  Sight<KZ, KY, KX, DX> sight;
  sight.look(c, o < n, l);
  auto row_of = [&](int k) { return sight.row(k); };
  u32 seen[sight.MASKS] = {};
  sight.add_to(seen);
#ifdef WINDOW
  __shared__ Ordering shared;
  write_in_order(
      shared, o - (int)threadIdx.x, n, seen[0], row_of, in_order, order_pitch, order_masks, order);
  if (!table) return;
#endif
  write_column<OFFSETS>(row_of, seen, o, o < n, table, pitch, masks, mask_words);
}

extern "C" __global__ void __launch_bounds__(THREADS) fill_table(
    const int4* sites, const int* count, int capacity, const u32* words, const int* rank,
    int Z, int Y, int X, int W,
    int, int, int, int sz, int sy, int sx, int pz, int py, int px, int dz, int dy, int,
    int most_rows, int* table, int pitch, u32* masks, int mask_words, int* in_order, int order_pitch, u32* order_masks,
    int* order) {
  const int o = blockIdx.x * blockDim.x + threadIdx.x;
  const int4 c = o < capacity ? sites[o] : make_int4(0, 0, 0, 0);  // asked for beside the count
  const int n = min(*count, capacity);
  if (o / TOGETHER * TOGETHER >= n) return;
  const Lookup l{words, rank, Z, Y, X, W, sz, sy, sx, pz, py, px, dz, dy, most_rows};
  fill(c, o, n, l, table, pitch, masks, mask_words, in_order, order_pitch, order_masks, order);
}

// The same for the voxels of a bitmap as `scan` left it, whose coordinates are written on the way.
extern "C" __global__ void __launch_bounds__(THREADS) fill_scanned(
    const u32* site_words, const int* site_rank, const int* listed, int listed_capacity, const int* tile_words,
    const int* totals, int site_z, int site_y, int site_w, u32 z_times, int z_shift, u32 y_times, int y_shift,
    u32 w_times, int w_shift, int4* coordinates, int capacity, const u32* words, const int* rank,
    int Z, int Y, int X, int W, int sz, int sy, int sx, int pz, int py, int px, int dz, int dy, int,
    int most_rows, int* table, int pitch, u32* masks, int mask_words, int* in_order, int order_pitch, u32* order_masks,
    int* order) {
  const int o = blockIdx.x * blockDim.x + threadIdx.x;
  await_earlier();
  // Asked for together.
  const int place = o < capacity ? tile_words[o >> 5] : 0, rows = totals[0], listed_words = totals[1];
  const int n = min(rows, capacity);
  if (o / TOGETHER * TOGETHER >= n) return;
  const Scanned scanned{site_words, site_rank, listed, listed_capacity, site_z, site_y, site_w,
                        {z_times, z_shift}, {y_times, y_shift}, {w_times, w_shift}};
  const int4 c = scanned_cell(scanned, o, n, place, listed_words);
  if (o < n) coordinates[o] = c;
  const Lookup l{words, rank, Z, Y, X, W, sz, sy, sx, pz, py, px, dz, dy, most_rows};
  fill(c, o, n, l, table, pitch, masks, mask_words, in_order, order_pitch, order_masks, order);
}
#else
extern "C" __global__ void fill_table(
    const int4* sites, const int* count, int capacity, const u32* words, const int* rank,
    int Z, int Y, int X, int W,
    int kz, int ky, int kx, int sz, int sy, int sx, int pz, int py, int px, int dz, int dy, int dx,
    int most_rows, int* table, int pitch, u32* masks, int mask_words, int*, int, u32*, int*) {
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
