// The foreground of a focal convolution that takes so many of each frame's best, in two kernels:
// keys and how many of them begin with each byte; then, a block a frame, the last key that is in
// and its last row. `logits.cuh` has the macros.

#include "../../ops/device.cuh"
#include "../../ops/half.cuh"
#include "logits.cuh"

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
