// A focal convolution's choice: which voxels matter, and which neighbours they add.
//
// `logits` are rows of PITCH 16-bit numbers: of the OFFSETS - 1 neighbours, in the kernel's order
// without its centre, then the voxel's own. The important voxels are the foreground: those whose
// own probability exceeds the threshold or, with TOP_K, so many of each frame's best.
//
// Macros:
//   KZ, KY, KX   the kernel
//   PITCH        numbers of a row of logits
//   TOP_K        1: the foreground is what `cuts` say, 0: what exceeds the threshold
//   BF16         1: bfloat16, 0: float16

typedef unsigned int u32;
typedef unsigned short u16;

#define OFFSETS (KZ * KY * KX)
#define CENTRE (OFFSETS / 2)
#define OWN (OFFSETS - 1)
#define FULL 0xffffffffu

#if BF16
__device__ __forceinline__ float to_float(u16 v) { return __uint_as_float((u32)v << 16); }
__device__ __forceinline__ u16 from_float(float f) {
  u16 v;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(v) : "f"(f));
  return v;
}
#define INFINITY_BITS 0x7f80
#else
__device__ __forceinline__ float to_float(u16 v) {
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(v));
  return f;
}
__device__ __forceinline__ u16 from_float(float f) {
  u16 v;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(v) : "f"(f));
  return v;
}
#define INFINITY_BITS 0x7c00
#endif

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
  int before = 0;
  for (int i = 0; i < warp; i++) before += parts[i];
  return value + before;
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

#define ROWS_OF_WARP 8

// Sets the bits of the neighbours that foreground voxels chose. A warp takes 8 rows, and a lane an
// offset.
extern "C" __global__ void mark_chosen(
    const u16* logits, const int4* coordinates, const int* count, int capacity, const Cut* cuts, float threshold,
    u32* words, int Z, int Y, int X, int W) {
  int n = min(*count, capacity), lane = threadIdx.x & 31;
  int first = (blockIdx.x * blockDim.x + threadIdx.x) / 32 * ROWS_OF_WARP, row = first + lane;
  bool important = false;
  int4 c = make_int4(0, 0, 0, 0);
  if (lane < ROWS_OF_WARP && row < n) {
    c = coordinates[row];
    important = in_foreground(logits[(long long)row * PITCH + OWN], row, TOP_K ? cuts[c.x] : Cut{0, 0}, threshold);
  }
  for (u32 left = __ballot_sync(FULL, important); left; left &= left - 1) {
    int from = __ffs(left) - 1;
    int b = __shfl_sync(FULL, c.x, from), z0 = __shfl_sync(FULL, c.y, from);
    int y0 = __shfl_sync(FULL, c.z, from), x0 = __shfl_sync(FULL, c.w, from);
    const u16* its = logits + (long long)(first + from) * PITCH;
#pragma unroll
    for (int i = 0; i < OFFSETS; i += 32) {
      int k = i + lane;
      if (k >= OFFSETS || k == CENTRE || !(sigmoid(logit_of(its, k)) >= threshold)) continue;
      int z = z0 + k / (KY * KX) - KZ / 2, y = y0 + k / KX % KY - KY / 2, x = x0 + k % KX - KX / 2;
      if (z < 0 || z >= Z || y < 0 || y >= Y || x < 0 || x >= X) continue;
      u32* word = words + ((long long)(b * Z + z) * Y + y) * W + (x >> 5);
      u32 bit = 1u << (x & 31);
      if (!(*word & bit)) atomicOr(word, bit);
    }
  }
}

#define GATE_ROWS 128

// Multiplies features, in place: with `by_neighbours`, a foreground voxel's by the mean of 1 and
// the probabilities with which other foreground voxels chose it; with `by_own`, all by their
// voxel's own probability. `table` is the level's submanifold map of the kernel; `columns` of a
// row are a multiple of 8.
extern "C" __global__ void __launch_bounds__(GATE_ROWS) gate(
    const u16* logits, const int4* coordinates, const int* count, int capacity, const Cut* cuts, float threshold,
    const int* table, int pitch, int by_neighbours, int by_own, u16* features, int columns) {
  __shared__ float factors[GATE_ROWS];
  int n = min(*count, capacity), first = blockIdx.x * GATE_ROWS, row = first + threadIdx.x;
  if (first >= n) return;
  float factor = 1.f;
  if (row < n) {
    u16 own = logits[(long long)row * PITCH + OWN];
    Cut cut = TOP_K ? cuts[coordinates[row].x] : Cut{0, 0};
    if (by_neighbours && in_foreground(own, row, cut, threshold)) {
      float total = 1.f, received = 1.f;
#pragma unroll 9
      for (int k = 0; k < OFFSETS; k++) {
        int other = k == CENTRE ? -1 : table[(long long)k * pitch + row];
        if (other < 0) continue;
        // It lies at offset k from here, so we lie at the opposite offset from it.
        const u16* its = logits + (long long)other * PITCH;
        float probability = sigmoid(logit_of(its, OFFSETS - 1 - k));
        if (!(probability >= threshold) || !in_foreground(its[OWN], other, cut, threshold)) continue;
        total += probability;
        received += 1.f;
      }
      factor = total / received;
    }
    if (by_own) factor *= sigmoid(own);
  }
  factors[threadIdx.x] = factor;
  __syncthreads();
  const int eights = columns / 8, rows = min(GATE_ROWS, n - first);
  uint4* own = (uint4*)(features + (long long)first * columns);
  for (int i = threadIdx.x; i < rows * eights; i += GATE_ROWS) {
    float times = factors[i / eights];
    if (times == 1.f) continue;
    uint4 v = own[i];
    u32* words = (u32*)&v;
#pragma unroll
    for (int j = 0; j < 4; j++) {
      u32 low = from_float(to_float((u16)words[j]) * times);
      words[j] = low | (u32)from_float(to_float((u16)(words[j] >> 16)) * times) << 16;
    }
    own[i] = v;
  }
}
