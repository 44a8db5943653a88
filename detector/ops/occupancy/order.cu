// A table that is there, in another order: see `order.cuh`.

#include "../device.cuh"
#include "order.cuh"

// `out` gets the first `count` columns of the table.
extern "C" __global__ void __launch_bounds__(WINDOW) order_table(
    const int* table, int pitch, const int* count, int capacity, int* out, int out_pitch, u32* masks, int* order) {
  __shared__ Ordering shared;
  const int first = blockIdx.x * WINDOW, o = first + threadIdx.x, n = min(*count, capacity);
  if (first >= n) return;
  int rows[OFFSETS];
  u32 mask = 0;
#pragma unroll
  for (int k = 0; k < OFFSETS; k++) rows[k] = o < n ? table[(long long)k * pitch + o] : -1;
#pragma unroll
  for (int k = 0; k < OFFSETS; k++) mask |= (u32)(rows[k] >= 0) << k;
  write_in_order(shared, first, n, mask, [&](int k) { return rows[k]; }, out, out_pitch, masks, order);
}

// Tiles of 64 columns, those first that see something through many offsets: who takes them in turn isn't left with
// long ones at the end. One block; OFFSETS is at most 32.
#define LIST_THREADS 1024
extern "C" __global__ void __launch_bounds__(LIST_THREADS) list_tiles(
    const u32* masks, const int* count, int capacity, int* list) {
  __shared__ int places[32];  // of tiles of 31 offsets and more, of 30, ... of none
  const int tid = threadIdx.x, n = min(*count, capacity), tiles = (n + 63) / 64;
  if (tid < 32) places[tid] = 0;
  __syncthreads();
  auto bin_of = [&](int tile) {
    const u32 mask = masks[2 * tile] | (64 * tile + 32 < n ? masks[2 * tile + 1] : 0);
    return max(31 - __popc(mask), 0);
  };
  for (int tile = tid; tile < tiles; tile += LIST_THREADS) atomicAdd(&places[bin_of(tile)], 1);
  __syncthreads();
  if (tid < 32) {
    const int own = places[tid];
    int up_to = own;
    for (int by = 1; by < 32; by *= 2) {
      const int other = __shfl_up_sync(~0u, up_to, by);
      if (tid >= by) up_to += other;
    }
    places[tid] = up_to - own;
  }
  __syncthreads();
  for (int tile = tid; tile < tiles; tile += LIST_THREADS) list[atomicAdd(&places[bin_of(tile)], 1)] = tile;
}
