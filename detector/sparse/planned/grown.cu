// What a focal convolution's added voxels need of an index: rows, coordinates, tables. `index.cu`
// and `sight.cuh` describe both.
//
// Macros:
//   KZ, KY, KX   the kernel
//   NZ, NY, NX   the kernel of the strided convolution that follows

#include "../../ops/device.cuh"
#include "../../ops/occupancy/bits.cuh"
#include "../../ops/occupancy/sight.cuh"

#define OFFSETS (KZ * KY * KX)
#define FULL 0xffffffffu
#define WORDS_OF_WARP 8

// Numbers the added voxels, whose rows follow the old ones', lists their cells and fills their
// columns of the old ones' table. A warp takes some words, and words come in any order, which no
// sum over a voxel's neighbours depends on.
//   old_count     voxels before
//   most_rows     that there is room for, old and added
extern "C" __global__ void __launch_bounds__(128) number_added(
    const u32* added, int* rank, const int* listed, int listed_capacity, int* added_totals, int4* coordinates,
    int capacity, const u32* old, const int* old_rank, const int* old_count, int most_old, int Z, int Y, int X, int W,
    int* grown_count, int most_rows, int* table, int pitch, u32* masks, int mask_words) {
  may_follow();
  await_earlier();
  const int lane = threadIdx.x & 31, words = added_totals[1];
  const int first = (blockIdx.x * blockDim.x + threadIdx.x) / 32 * WORDS_OF_WARP;
  // Words that were not listed hold a voxel each at least: enough to be over the capacity.
  if (first + lane == 0 && words > listed_capacity) atomicAdd(&added_totals[0], words - listed_capacity);
  if (first >= min(words, listed_capacity)) return;
  const bool own = lane < WORDS_OF_WARP && first + lane < min(words, listed_capacity);
  const int word = own ? listed[first + lane] : 0;
  const u32 bits = own ? added[word] : 0;
  int before = __popc(bits);
#pragma unroll
  for (int o = 1; o < WORDS_OF_WARP; o <<= 1) {
    const int other = __shfl_up_sync(FULL, before, o);
    if (lane >= o) before += other;
  }
  const int all = __shfl_sync(FULL, before, WORDS_OF_WARP - 1);
  before -= __popc(bits);
  int base = 0;
  if (lane == 0) {
    base = atomicAdd(grown_count, all);
    atomicAdd(&added_totals[0], all);
  }
  base = __shfl_sync(FULL, base, 0);
  if (own) rank[word] = base + before;
  const int first_row = min(*old_count, most_old);
  const Lookup of_old{old, old_rank, Z, Y, X, W, 1, 1, 1, KZ / 2, KY / 2, KX / 2, 1, 1, most_old};
  for (int start = 0; start < all; start += 32) {
    const int i = start + lane, row = base + i;
    int from = -1;  // the lane whose word holds the i-th voxel
#pragma unroll
    for (int j = 0; j < WORDS_OF_WARP; j++) {
      const int its = __shfl_sync(FULL, before, j);
      const bool its_own = first + j < min(words, listed_capacity);
      if (its_own && its <= i) from = j;
    }
    const int its_word = __shfl_sync(FULL, word, from), its_before = __shfl_sync(FULL, before, from);
    const u32 its_bits = __shfl_sync(FULL, bits, from);
    const bool alive = i < all && row < most_rows;
    const int line = its_word / W, plane = line / Y, frame = plane / Z;
    const int4 c = make_int4(
        frame, plane - frame * Z, line - plane * Y, (its_word - line * W) * 32 + place_of_bit(its_bits, i - its_before));
    if (alive && row - first_row < capacity) coordinates[row - first_row] = c;
    Sight<KZ, KY, KX> sight;
    sight.look(c, alive, of_old);
    auto row_of = [&](int k) { return sight.row(k); };
    u32 seen[sight.MASKS] = {};
    sight.add_to(seen);
    add_to_column<OFFSETS>(row_of, seen, row, alive, (base + start) >> 5, table, pitch, masks, mask_words);
  }
}

// The table of the strided convolution: as `fill_scanned` of tables.cu, but of old voxels and of
// added ones. NX is at most 32.
extern "C" __global__ void __launch_bounds__(128) fill_grown(
    const u32* site_words, const int* site_rank, const int* listed, int listed_capacity, const int* tile_words,
    const int* totals, int site_z, int site_y, int site_w, u32 z_times, int z_shift, u32 y_times, int y_shift,
    u32 w_times, int w_shift, int4* coordinates, int capacity, const u32* old, const int* old_rank, int most_old,
    const u32* added, const int* added_rank, int most_rows, int Z, int Y, int X, int W, int sz, int sy, int sx,
    int pz, int py, int px, int* table, int pitch, u32* masks, int mask_words) {
  const int o = blockIdx.x * blockDim.x + threadIdx.x;
  const int place = o < capacity ? tile_words[o >> 5] : 0, rows = totals[0], listed_words = totals[1];
  const int n = min(rows, capacity);
  if ((o & ~31) >= n) return;
  const Scanned scanned{site_words, site_rank, listed, listed_capacity, site_z, site_y, site_w,
                        {z_times, z_shift}, {y_times, y_shift}, {w_times, w_shift}};
  const int4 c = scanned_cell(scanned, o, n, place, listed_words);
  if (o < n) coordinates[o] = c;
  const Lookup of_old{old, old_rank, Z, Y, X, W, sz, sy, sx, pz, py, px, 1, 1, most_old};
  const Lookup of_added{added, added_rank, Z, Y, X, W, sz, sy, sx, pz, py, px, 1, 1, most_rows};
  Sight<NZ, NY, NX> was;
  Sight<NZ, NY, NX, 1, false> came;
  was.look(c, o < n, of_old);
  came.look(c, o < n, of_added);
  auto row_of = [&](int k) {
    const int row = was.row(k), more = came.row(k);
    return more >= 0 ? more : row;
  };
  u32 seen[was.MASKS] = {};
  was.add_to(seen);
  came.add_to(seen);
  write_column<NZ * NY * NX>(row_of, seen, o, o < n, table, pitch, masks, mask_words);
}
