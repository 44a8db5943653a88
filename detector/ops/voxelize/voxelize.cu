// Voxelization on a GPU, with the rows, the order and the bits of the CPU's.
//
// A point's cell is floor((p - minimum) / size) in float32: a subtraction and a division, each
// rounded, never fused. Sums of a voxel's points are taken in the points' order, in float64.

typedef unsigned int u32;
typedef unsigned char u8;

__device__ __forceinline__ bool cell_of(
    const void* points, int is_double, int channels, int p, float3 low, float3 size, int Z, int Y, int X, int3* cell) {
  float x, y, z;
  if (is_double) {
    const double* q = (const double*)points + (long long)p * channels;
    x = (float)q[0]; y = (float)q[1]; z = (float)q[2];
  } else {
    const float* q = (const float*)points + (long long)p * channels;
    x = q[0]; y = q[1]; z = q[2];
  }
  float fx = floorf(__fdiv_rn(__fsub_rn(x, low.x), size.x));
  float fy = floorf(__fdiv_rn(__fsub_rn(y, low.y), size.y));
  float fz = floorf(__fdiv_rn(__fsub_rn(z, low.z), size.z));
  // A point that is not a number compares false.
  if (!(fx >= 0 && fx < X && fy >= 0 && fy < Y && fz >= 0 && fz < Z)) return false;
  *cell = make_int3((int)fx, (int)fy, (int)fz);
  return true;
}

// (frame, z, y, x) of each point, -1 throughout outside; sets the cells' bits.
extern "C" __global__ void mark_points(
    const void* points, int is_double, int channels, const int* frames, const int* count, int capacity,
    float lx, float ly, float lz, float sx, float sy, float sz, int Z, int Y, int X, int batch,
    int words_z, int words_y, int W, u32* words, u8* lines, int4* cells) {
  int n = count ? min(*count, capacity) : capacity;
  int p = blockIdx.x * blockDim.x + threadIdx.x;
  if (p >= n) return;
  int3 c;
  int frame = frames ? frames[p] : 0;
  int4 found = make_int4(-1, -1, -1, -1);
  if (frame >= 0 && frame < batch &&
      cell_of(points, is_double, channels, p, make_float3(lx, ly, lz), make_float3(sx, sy, sz), Z, Y, X, &c)) {
    found = make_int4(frame, c.z, c.y, c.x);
    // The bitmap's grid may be taller than the points'.
    const long long word = ((long long)(frame * words_z + c.z) * words_y + c.y) * W + (c.x >> 5);
    const u32 bit = 1u << (c.x & 31);
    if (!(words[word] & bit)) {  // many points share a cell
      atomicOr(&words[word], bit);
      lines[word >> 5] = 1;
    }
  }
  cells[p] = found;
}

// voxel_of_point[p] = row of its cell; counts[row] = points there, in no order.
extern "C" __global__ void count_points(
    const int4* cells, const int* count, int capacity, const u32* words, const int* rank, int words_z, int words_y,
    int W, int most_rows, int* voxel_of_point, int* counts, int* slots) {
  int n = count ? min(*count, capacity) : capacity;
  int p = blockIdx.x * blockDim.x + threadIdx.x;
  if (p >= n) return;
  int4 c = cells[p];
  int row = -1;
  if (c.x >= 0) {
    long long at = ((long long)(c.x * words_z + c.y) * words_y + c.z) * W + (c.w >> 5);
    u32 v = words[at], bit = 1u << (c.w & 31);
    if (v & bit) row = rank[at] + __popc(v & (bit - 1));  // a voxel may have been dropped
    if (row >= most_rows) row = -1;
  }
  voxel_of_point[p] = row;
  if (row >= 0) slots[p] = atomicAdd(&counts[row], 1);
}

// Lists of points by voxel: members[starts[row] + slot] = p, slots as they came.
extern "C" __global__ void list_points(
    const int* voxel_of_point, const int* count, int capacity, const int* starts, const int* slots, int* members) {
  int n = count ? min(*count, capacity) : capacity;
  int p = blockIdx.x * blockDim.x + threadIdx.x;
  if (p >= n) return;
  int row = voxel_of_point[p];
  if (row >= 0) members[starts[row] + slots[p]] = p;
}

// Where each row's list starts. Rows of a warp reserve one stretch of `members`: the order of the
// stretches is left to chance, what they hold is not. Rows of more than FEW points are listed apart.
// next: [points reserved, crowded rows].
#define FEW 24
#define MANY 1024  // what a block sorts at once

extern "C" __global__ void reserve(
    const int* counts, const int* count, int capacity, int* next, int* starts, int* crowded) {
  int n = min(*count, capacity);
  int row = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x & 31;
  int mine = row < n ? counts[row] : 0, sum = mine;
  for (int o = 1; o < 32; o <<= 1) {
    int t = __shfl_up_sync(~0u, sum, o);
    if (lane >= o) sum += t;
  }
  int base = 0;
  if (lane == 31 && sum) base = atomicAdd(next, sum);
  base = __shfl_sync(~0u, base, 31);
  if (row < n) starts[row] = base + sum - mine;
  if (mine > FEW) crowded[atomicAdd(next + 1, 1)] = row;
}

// first[row] = lowest point of each voxel, after `list_points`; for the limit of voxels.
extern "C" __global__ void first_points(
    const int* counts, const int* starts, const int* members, const int* count, int capacity, int* first) {
  int row = blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= min(*count, capacity)) return;
  int least = 0x7fffffff;
  for (int i = 0; i < counts[row]; i++) least = min(least, members[starts[row] + i]);
  first[row] = least;
}

// Both of the following put a voxel's list in the points' order and average the first `limit` (0:
// all). Points beyond the limit leave their voxel. Rows of `means` are `pitch` numbers apart, of
// which those past the channels become zero; their type is float32 (0), float64 (1), float16 (2) or
// bfloat16 (3).
__device__ __forceinline__ void write(void* means, long long at, double value, int type) {
  if (type == 1) ((double*)means)[at] = value;
  else if (type == 0) ((float*)means)[at] = (float)value;
  else {
    float f = (float)value;
    unsigned short h;
    if (type == 2) asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
    else {
      u32 both;
      asm("cvt.rn.bf16x2.f32 %0, %1, %1;" : "=r"(both) : "f"(f));
      h = both & 0xffff;
    }
    ((unsigned short*)means)[at] = h;
  }
}

__device__ __forceinline__ double mean_of(
    const void* points, int is_double, int channels, const int* list, int kept, int c) {
  double sum = 0;
#pragma unroll 4
  for (int i = 0; i < kept; i++) {
    long long at = (long long)list[i] * channels + c;
    sum += is_double ? ((const double*)points)[at] : (double)((const float*)points)[at];
  }
  return sum / kept;
}

// A thread a row of few points.
extern "C" __global__ void average(
    const void* points, int is_double, int channels, const int* starts, const int* members, const int* count,
    int capacity, int limit, int* counts, int* voxel_of_point, void* means, int pitch, int type) {
  int row = blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= min(*count, capacity)) return;
  int size = counts[row];
  if (size > FEW) return;
  int list[FEW];
  const int* from = members + starts[row];
  for (int i = 0; i < size; i++) {
    int value = from[i], j = i;
    for (; j > 0 && list[j - 1] > value; j--) list[j] = list[j - 1];
    list[j] = value;
  }
  int kept = limit > 0 ? min(limit, size) : size;
  if (voxel_of_point)
    for (int i = kept; i < size; i++) voxel_of_point[list[i]] = -1;
  if (kept < size) counts[row] = kept;
  for (int c = 0; c < pitch; c++)
    write(means, (long long)row * pitch + c, c < channels ? mean_of(points, is_double, channels, list, kept, c) : 0, type);
}

// A block a row of many points. Up to MANY are sorted in shared memory; more are counted against
// one another, which is slow and rare.
extern "C" __global__ void __launch_bounds__(256) average_crowded(
    const void* points, int is_double, int channels, const int* starts, const int* members, int* sorted,
    const int* next, const int* crowded, int limit, int* counts, int* voxel_of_point, void* means, int pitch,
    int type) {
  __shared__ int memory[MANY];
  for (int turn = blockIdx.x; turn < next[1]; turn += gridDim.x) {
    int row = crowded[turn], size = counts[row];
    const int* from = members + starts[row];
    int* list = memory;
    __syncthreads();
    if (size <= MANY) {
      int power = 32;
      while (power < size) power *= 2;
      for (int i = threadIdx.x; i < power; i += blockDim.x) memory[i] = i < size ? from[i] : 0x7fffffff;
      for (int span = 2; span <= power; span *= 2)
        for (int step = span / 2; step; step /= 2) {
          __syncthreads();
          for (int i = threadIdx.x; i < power; i += blockDim.x) {
            int j = i ^ step;
            if (j > i && (memory[i] > memory[j]) == ((i & span) == 0)) {
              int held = memory[i];
              memory[i] = memory[j];
              memory[j] = held;
            }
          }
        }
    } else {
      list = sorted + starts[row];
      for (int i = threadIdx.x; i < size; i += blockDim.x) {
        int before = 0;
        for (int j = 0; j < size; j++) before += from[j] < from[i];
        list[before] = from[i];
      }
    }
    __syncthreads();
    int kept = limit > 0 ? min(limit, size) : size;
    if (voxel_of_point)
      for (int i = kept + threadIdx.x; i < size; i += blockDim.x) voxel_of_point[list[i]] = -1;
    if (threadIdx.x == 0) counts[row] = kept;
    for (int c = threadIdx.x; c < pitch; c += blockDim.x)
      write(means, (long long)row * pitch + c, c < channels ? mean_of(points, is_double, channels, list, kept, c) : 0, type);
  }
}
