// What a focal convolution's important voxels do: they add neighbours and gate features.
//
// Macros: those of `logits.cuh`, and
//   ROWS         of a block that looks for important voxels
//   NZ, NY, NX   the kernel of the strided convolution that follows

#include "../../ops/device.cuh"
#include "../../ops/half.cuh"
#include "../../ops/occupancy/bits.cuh"
#include "logits.cuh"

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
