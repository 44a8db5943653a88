// A focal convolution's choice: which voxels matter, and which neighbours they add.
//
// `logits` are rows of PITCH 16-bit numbers: of the OFFSETS - 1 neighbours, in the kernel's order
// without its centre, then the voxel's own. The important voxels are the foreground: those whose
// own probability exceeds the threshold or, with TOP_K, so many of each frame's best.
//
// Macros:
//   KZ, KY, KX   the kernel
//   PITCH        numbers of a row of logits
//   ROWS         of a block that looks for important voxels
//   TOP_K        1: the foreground is what `cuts` say, 0: what exceeds the threshold
//   BF16         1: bfloat16, 0: float16
//   NZ, NY, NX   the kernel of the strided convolution that follows

#include "../../ops/device.cuh"
#include "../../ops/half.cuh"
#include "../../ops/occupancy/bits.cuh"
#include "../../ops/occupancy/sight.cuh"

#define OFFSETS (KZ * KY * KX)
#define CENTRE (OFFSETS / 2)
#define OWN (OFFSETS - 1)
#define FULL 0xffffffffu

#if BF16
#define INFINITY_BITS 0x7f80
#else
#define INFINITY_BITS 0x7c00
#endif

__device__ __forceinline__ float to_float(u16 v) { return low_half(v); }

__device__ __forceinline__ float sigmoid(u16 v) { return 1.f / (1.f + expf(-to_float(v))); }

// Integers in the order of the numbers; zeros are equal, and NaN comes above all, as torch sorts.
__device__ __forceinline__ int key_of(u16 v) {
  int size = v & 0x7fff;
  if (size > INFINITY_BITS) return 0xffff;
  return v & 0x8000 && size ? 0x8000 - size : 0x8000 + size;
}

// Where a frame's foreground ends: keys above `key` are in it, and equal ones up to `row`.
struct Cut { int key, row; };

__device__ __forceinline__ bool in_foreground(u16 own, int row, Cut cut, float threshold) {
#if TOP_K
  int key = key_of(own);
  return key > cut.key || (key == cut.key && row < cut.row);
#else
  return sigmoid(own) > threshold;
#endif
}

// Offset k's logit, k not the centre.
__device__ __forceinline__ u16 logit_of(const u16* row, int k) { return row[k - (k > CENTRE)]; }

// ---------------------------------------------------------------------------------------------
// The foreground of top-k, in two kernels: keys and how many of them begin with each byte; then,
// a block a frame, the last key that is in and its last row.

extern "C" __global__ void __launch_bounds__(256) list_keys(
    const u16* logits, const int4* coordinates, const int* count, int capacity, u16* keys, u32* counts) {
  __shared__ u32 mine[256];
  int n = min(*count, capacity), first = blockIdx.x * 256, row = first + threadIdx.x;
  if (first >= n) return;
  mine[threadIdx.x] = 0;
  __syncthreads();
  int frame = coordinates[first].x;
  if (row < n) {
    int key = key_of(logits[(long long)row * PITCH + OWN]), its_frame = coordinates[row].x;
    keys[row] = (u16)key;
    if (its_frame == frame) atomicAdd(&mine[key >> 8], 1u);
    else atomicAdd(&counts[its_frame * 256 + (key >> 8)], 1u);
  }
  __syncthreads();
  if (mine[threadIdx.x]) atomicAdd(&counts[frame * 256 + threadIdx.x], mine[threadIdx.x]);
}

#define CUT_THREADS 1024

// Sum over the threads up to this one.
__device__ int sum_up_to(int value, int* parts) {
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  for (int o = 1; o < 32; o <<= 1) {
    int other = __shfl_up_sync(FULL, value, o);
    if (lane >= o) value += other;
  }
  __syncthreads();  // `parts` may still be read
  if (lane == 31) parts[warp] = value;
  __syncthreads();
  return value + __reduce_add_sync(FULL, lane < warp ? parts[lane] : 0);
}

struct Place { int at, left; };

// In which of 256 counts, from the last, the `wanted`-th lies, and which one in it it is.
__device__ Place find_from_top(const u32* counts, int wanted, int* parts, Place* place) {
  int n = threadIdx.x < 256 ? (int)counts[255 - threadIdx.x] : 0;
  int up_to = sum_up_to(n, parts);
  if (up_to >= wanted && up_to - n < wanted) *place = Place{255 - (int)threadIdx.x, wanted - (up_to - n)};
  __syncthreads();
  return *place;
}

extern "C" __global__ void __launch_bounds__(CUT_THREADS) find_cuts(
    const u16* keys, const u32* counts, double share, Cut* cuts) {
  __shared__ int parts[CUT_THREADS / 32], totals[2];
  __shared__ u32 bins[256];
  __shared__ Place place[2];
  int frame = blockIdx.x, tid = threadIdx.x;
  int before = 0, own = 0;
  if (tid < 256) {
    for (int i = 0; i < frame; i++) before += counts[i * 256 + tid];
    own = counts[frame * 256 + tid];
    bins[tid] = 0;
  }
  before = sum_up_to(before, parts);
  own = sum_up_to(own, parts);
  if (tid == CUT_THREADS - 1) { totals[0] = before; totals[1] = own; }
  __syncthreads();
  const int start = totals[0], end = start + totals[1], wanted = (int)((double)totals[1] * share);
  if (wanted <= 0) {
    if (tid == 0) cuts[frame] = Cut{0x10000, 0};
    return;
  }
  Place high = find_from_top(counts + frame * 256, wanted, parts, &place[0]);

  const uint4* eights = (const uint4*)keys;
  const int first = start >> 3, groups = ((end + 7) >> 3) - first;
  for (int i = tid; i < groups; i += CUT_THREADS) {
    uint4 v = eights[first + i];
    u32 words[4] = {v.x, v.y, v.z, v.w};
    for (int e = 0; e < 8; e++) {
      int row = (first + i) * 8 + e, key = words[e >> 1] >> (16 * (e & 1)) & 0xffff;
      if (row >= start && row < end && key >> 8 == high.at) atomicAdd(&bins[key & 255], 1u);
    }
  }
  __syncthreads();
  Place low = find_from_top(bins, high.left, parts, &place[1]);
  const int last = high.at << 8 | low.at;

  // A thread takes adjacent rows, so that the count up to it is a count up to a row.
  const int each = (groups + CUT_THREADS - 1) / CUT_THREADS;
  const int from = min(tid * each, groups), to = min(from + each, groups);
  int equal = 0;
  for (int i = from; i < to; i++) {
    uint4 v = eights[first + i];
    u32 words[4] = {v.x, v.y, v.z, v.w};
    for (int e = 0; e < 8; e++) {
      int row = (first + i) * 8 + e, key = words[e >> 1] >> (16 * (e & 1)) & 0xffff;
      equal += row >= start && row < end && key == last;
    }
  }
  int up_to = sum_up_to(equal, parts);
  if (up_to >= low.left && up_to - equal < low.left) {
    int left = low.left - (up_to - equal), row = max(start, (first + from) * 8) - 1;
    while (left) left -= keys[++row] == last;
    cuts[frame] = Cut{last, row + 1};
  }
}

// ---------------------------------------------------------------------------------------------

// The important ones among a block's rows, in any order; its warps share them evenly. Important voxels lie together,
// so that the rows of a block are far apart: block i takes i, i + blocks, i + 2 * blocks ...
struct Important {
  int4 cell[ROWS];
  int row[ROWS];
  Cut cut[ROWS];
  int count;
};

__device__ __forceinline__ int blocks_of(int n) { return (n + ROWS - 1) / ROWS; }
__device__ __forceinline__ int row_of_block(int i, int n) { return blockIdx.x + i * blocks_of(n); }

__device__ __forceinline__ void list_important(
    Important& list, const u16* logits, const int4* coordinates, int n, const Cut* cuts, float threshold) {
  if (threadIdx.x == 0) list.count = 0;
  __syncthreads();
  const int row = row_of_block(threadIdx.x, n);
  if (threadIdx.x < ROWS && row < n) {
    const u16 own = logits[(long long)row * PITCH + OWN];
    Cut cut{0, 0};
    if (TOP_K) cut = cuts[coordinates[row].x];
    if (in_foreground(own, row, cut, threshold)) {
      const int place = atomicAdd(&list.count, 1);
      list.cell[place] = coordinates[row];
      list.row[place] = row;
      list.cut[place] = cut;
    }
  }
  __syncthreads();
}

// Marks the neighbours that foreground voxels chose and that are not there yet in `added`, of the
// same grid, and lists its words that hold any; marks the cells below whose windows hold one of
// them. A warp takes a voxel, a lane an offset.
//
//   added_totals   [voxels, words that hold any], 0 before
//   grown_count    becomes the number of rows
//   masks          of the rows' table, `mask_count` words; those of tiles beyond the rows become 0
extern "C" __global__ void __launch_bounds__(256) mark_chosen(
    const u16* logits, const int4* coordinates, const int* count, int capacity, const Cut* cuts, float threshold,
    const u32* old, u32* added, u8* added_lines, int* listed, int listed_capacity, int* added_totals,
    int Z, int Y, int X, int W, u32* below, u8* below_lines, int below_z, int below_y, int below_x, int below_w,
    int sz, int sy, int sx, int pz, int py, int px, int* grown_count, u32* masks, int mask_words, int mask_count) {
  __shared__ Important list;
  __shared__ int words[ROWS * OFFSETS], found, place, fresh;
  __shared__ u16 cells[ROWS * OFFSETS];  // that are new, of which voxel and offset
  const int n = min(*count, capacity), lane = threadIdx.x & 31;
  const int tid = blockIdx.x * blockDim.x + threadIdx.x;
  may_follow();
  if (tid == 0) *grown_count = n;
  for (int i = (n + 31) / 32 * mask_words + tid; i < mask_count; i += gridDim.x * blockDim.x) masks[i] = 0;
  if (blockIdx.x >= blocks_of(n)) return;
  if (threadIdx.x == 0) found = fresh = 0;
  await_earlier();
  list_important(list, logits, coordinates, n, cuts, threshold);
  if (list.count == 0) return;
  const Grid g{Z, Y, X, W};
  for (int i = threadIdx.x >> 5; i < list.count; i += blockDim.x >> 5) {
    const int4 c = list.cell[i];
    const u16* its = logits + (long long)list.row[i] * PITCH;
#pragma unroll
    for (int k = lane; k < OFFSETS; k += 32) {
      const int z = c.y + k / (KY * KX) - KZ / 2, y = c.z + k / KX % KY - KY / 2, x = c.w + k % KX - KX / 2;
      if (k == CENTRE || z < 0 || z >= Z || y < 0 || y >= Y || x < 0 || x >= X) continue;
      const long long word = (long long)line_of(g, c.x, z, y) * W + (x >> 5);
      const u32 bit = 1u << (x & 31), there = old[word];  // asked for beside the logit
      if (!(sigmoid(logit_of(its, k)) >= threshold) || there & bit) continue;
      const u32 before = atomicOr(&added[word], bit);
      if (before & bit) continue;
      cells[atomicAdd(&fresh, 1)] = (u16)(i * OFFSETS + k);
      if (!before) words[atomicAdd(&found, 1)] = (int)word;
    }
  }
  __syncthreads();
  if (fresh == 0) return;
  if (threadIdx.x == 0 && found) place = atomicAdd(&added_totals[1], found);
  const Grid h{below_z, below_y, below_x, below_w};
  for (int i = threadIdx.x; i < fresh * NZ * NY; i += blockDim.x) {
    const int item = cells[i / (NZ * NY)], part = i % (NZ * NY), k = item % OFFSETS;
    const int4 c = list.cell[item / OFFSETS];
    const int z = c.y + k / (KY * KX) - KZ / 2 + pz - part / NY, y = c.z + k / KX % KY - KY / 2 + py - part % NY;
    if (z < 0 || z % sz || z / sz >= below_z || y < 0 || y % sy || y / sy >= below_y) continue;
    const long long line = (long long)line_of(h, c.x, z / sz, y / sy) * below_w;
#pragma unroll
    for (int d = 0; d < NX; d++) {
      const int x = c.w + k % KX - KX / 2 + px - d, to = x / sx;
      if (x < 0 || x % sx || to >= below_x) continue;
      const u32 bit = 1u << (to & 31);
      // Most are marked already, by what was there before.
      if (!(below[line + (to >> 5)] & bit)) set_bits(below, below_lines, line + (to >> 5), bit);
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < found; i += blockDim.x) {
    added_lines[words[i] / LINE] = 1;
    if (place + i < listed_capacity) listed[place + i] = words[i];
  }
}

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

// Multiplies features, in place: with `by_neighbours`, a foreground voxel's by the mean of 1 and
// the probabilities with which other foreground voxels chose it; with `by_own`, all by their
// voxel's own probability. `table` is the level's submanifold map of the kernel; `columns` of a
// row are a multiple of 8. A warp takes a voxel, a lane an offset.
extern "C" __global__ void __launch_bounds__(256) gate(
    const u16* logits, const int4* coordinates, const int* count, int capacity, const Cut* cuts, float threshold,
    const int* table, int pitch, int by_neighbours, int by_own, u16* features, int columns) {
  __shared__ Important list;
  const int n = min(*count, capacity), lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  if (blockIdx.x >= blocks_of(n)) return;
  auto multiply = [&](int row, float factor) {
    if (factor == 1.f) return;
    uint4* its = (uint4*)(features + (long long)row * columns);
    for (int i = lane; i < columns / 8; i += 32) {
      uint4 v = its[i];
      u32* words = (u32*)&v;
#pragma unroll
      for (int j = 0; j < 4; j++) PACK_F32(words[j], high_half(words[j]) * factor, low_half(words[j]) * factor);
      its[i] = v;
    }
  };
  list_important(list, logits, coordinates, n, cuts, threshold);
  if (by_neighbours)
    for (int i = warp; i < list.count; i += blockDim.x / 32) {
      const int row = list.row[i];
      const Cut cut = list.cut[i];
      float total = 0.f;
      int received = 0;
#pragma unroll
      for (int k = lane; k < OFFSETS; k += 32) {
        if (k == CENTRE) continue;
        const int other = table[(long long)k * pitch + row];
        if (other < 0) continue;
        // It lies at offset k from here, so we lie at the opposite offset from it.
        const u16* its = logits + (long long)other * PITCH;
        const u16 chosen = logit_of(its, OFFSETS - 1 - k), own = its[OWN];
        const float probability = sigmoid(chosen);
        if (!(probability >= threshold) || !in_foreground(own, other, cut, threshold)) continue;
        total += probability;
        received++;
      }
      for (int o = 16; o; o >>= 1) total += __shfl_xor_sync(FULL, total, o);
      received = __reduce_add_sync(FULL, received);
      const float own = by_own ? sigmoid(logits[(long long)row * PITCH + OWN]) : 1.f;
      multiply(row, own * (1.f + total) / (1.f + received));
    }
  if (!by_own) return;
  for (int i = warp; i < ROWS && row_of_block(i, n) < n; i += blockDim.x / 32) {
    const int row = row_of_block(i, n);
    const u16 own = logits[(long long)row * PITCH + OWN];
    const Cut cut = TOP_K ? cuts[coordinates[row].x] : Cut{0, 0};
    if (!by_neighbours || !in_foreground(own, row, cut, threshold)) multiply(row, sigmoid(own));
  }
}
