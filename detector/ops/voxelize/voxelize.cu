// Voxelization on a GPU, with the rows, the order and the bits of the CPU's.
//
// A point's cell is floor((p - minimum) / size) in float32: a subtraction and a division, each
// rounded, never fused. Sums of a voxel's points are taken in the points' order, in float64.

#include "../device.cuh"
#include "../narrow.cuh"
#include "../occupancy/bits.cuh"

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

// Each point's cell as the number of its bit in the bitmap, -1 outside; sets the bits. `zeroed` numbers from
// `zeros` on become 0, for the kernels to come.
extern "C" __global__ void mark_points(
    const void* points, int is_double, int channels, const int* frames, const int* count, int capacity,
    float lx, float ly, float lz, float sx, float sy, float sz, int Z, int Y, int X, int batch,
    int words_z, int words_y, int W, u32* words, u8* lines, long long* cells, int* zeros, int zeroed) {
  const int n = count ? min(*count, capacity) : capacity;
  const int p = blockIdx.x * blockDim.x + threadIdx.x;
  for (int i = p; i < zeroed; i += gridDim.x * blockDim.x) zeros[i] = 0;
  if (p >= n) return;
  int3 c;
  const int frame = frames ? frames[p] : 0;
  long long found = -1;
  if (frame >= 0 && frame < batch &&
      cell_of(points, is_double, channels, p, make_float3(lx, ly, lz), make_float3(sx, sy, sz), Z, Y, X, &c)) {
    // The bitmap's grid may be taller than the points'.
    const long long word = ((long long)(frame * words_z + c.z) * words_y + c.y) * W + (c.x >> 5);
    const u32 bit = 1u << (c.x & 31);
    found = word * 32 + (c.x & 31);
    if (!(words[word] & bit)) set_bits(words, lines, word, bit);  // many points share a cell
  }
  cells[p] = found;
}

// Points of a voxel come in no order. The first BUCKET to come lie in the voxel's bucket, which is most voxels'
// all; later ones are put aside with their place, and listed once it is known how many there
// are. A voxel with late points is crowded.
#define BUCKET 8
enum { LATE, LISTED, CROWDED };  // `totals`: points put aside, their room in `members`, crowded voxels

// voxel_of_point[p] = row of its cell; counts[row] = points there.
extern "C" __global__ void count_points(
    const long long* cells, const int* count, int capacity, const u32* words, const int* rank, int most_rows,
    int* voxel_of_point, int* counts, int* buckets, int2* late, int* totals) {
  const int n = count ? min(*count, capacity) : capacity;
  const int p = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x & 31;
  const long long cell = p < n ? cells[p] : -1;
  int row = -1, place = 0;
  if (cell >= 0) {
    const u32 v = words[cell >> 5], bit = 1u << (cell & 31);
    if (v & bit) row = rank[cell >> 5] + __popc(v & (bit - 1));  // a voxel may have been dropped
    if (row >= most_rows) row = -1;
  }
  if (row >= 0) place = atomicAdd(&counts[row], 1);
  if (p < n) voxel_of_point[p] = row;
  if (row >= 0 && place < BUCKET) buckets[(long long)row * BUCKET + place] = p;
  const u32 aside = __ballot_sync(~0u, row >= 0 && place >= BUCKET);
  if (!aside) return;
  int at = 0;
  if (lane == 0) at = atomicAdd(&totals[LATE], __popc(aside));
  at = __shfl_sync(~0u, at, 0) + __popc(aside & ((1u << lane) - 1));
  if (row >= 0 && place >= BUCKET) late[at] = make_int2(p, place);
}

// first[row] = lowest point of each voxel, where it was larger; for the limit of voxels.
extern "C" __global__ void first_points(const int* voxel_of_point, int capacity, int* first) {
  const int p = blockIdx.x * blockDim.x + threadIdx.x;
  if (p < capacity && voxel_of_point[p] >= 0) atomicMin(&first[voxel_of_point[p]], p);
}

// All that follows puts a voxel's points in their order and averages the first `limit` (0: all). Points beyond
// the limit leave their voxel. Rows of `means` are `pitch` numbers apart, of which those past the channels become
// zero; their type is float32 (0), float64 (1), float16 (2) or bfloat16 (3).
struct Means { void* rows; int pitch, type; };

__device__ __forceinline__ void write(Means means, int row, int channel, double value) {
  const long long at = (long long)row * means.pitch + channel;
  if (means.type == 0) ((float*)means.rows)[at] = (float)value;
  else if (means.type == 1) ((double*)means.rows)[at] = value;
  else ((u16*)means.rows)[at] = means.type == 2 ? float16_bits((float)value) : bfloat16_bits((float)value);
}

template <class T>
__device__ __forceinline__ void average_few(
    const T* points, int channels, const int* list, int kept, Means means, int row) {
  for (int first = 0; first < means.pitch; first += 4) {
    double sums[4] = {0, 0, 0, 0};
#pragma unroll
    for (int i = 0; i < BUCKET; i++)
      if (i < kept) {
        const T* from = points + (long long)list[i] * channels + first;
#pragma unroll
        for (int c = 0; c < 4; c++)
          if (first + c < channels) sums[c] += from[c];
      }
#pragma unroll
    for (int c = 0; c < 4; c++)
      if (first + c < means.pitch) write(means, row, first + c, first + c < channels ? sums[c] / kept : 0);
  }
}

// A thread a row, where all points lie in the bucket. The others get room in `members` from starts[row]
// on, where late points will lie at their places: the order of the stretches is left to chance, what they hold is not. `crowded` lists these rows,
// those with more than MANY points as ~row.
#define MANY 512  // what a warp sorts at once

extern "C" __global__ void average(
    const void* points, int is_double, int channels, const int* buckets, const int* count, int capacity, int limit,
    int* counts, int* starts, int* crowded, int* totals, int* voxel_of_point, void* rows, int pitch, int type) {
  const int n = min(*count, capacity);
  const int row = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x & 31;
  const int size = row < n ? counts[row] : 0;
  const u32 full = __ballot_sync(~0u, size > BUCKET);
  if (full) {
    const int mine = size > BUCKET ? size : 0;
    int sum = mine, start = 0, at = 0;
    for (int o = 1; o < 32; o <<= 1) {
      const int t = __shfl_up_sync(~0u, sum, o);
      if (lane >= o) sum += t;
    }
    if (lane == 31) {
      start = atomicAdd(&totals[LISTED], sum);
      at = atomicAdd(&totals[CROWDED], __popc(full));
    }
    start = __shfl_sync(~0u, start, 31) + sum - mine;
    at = __shfl_sync(~0u, at, 31) + __popc(full & ((1u << lane) - 1));
    if (mine) {
      starts[row] = start;
      crowded[at] = size > MANY ? ~row : row;
    }
  }
  if (size == 0 || size > BUCKET) return;
  int list[BUCKET];
  const int4* bucket = (const int4*)(buckets + (long long)row * BUCKET);
#pragma unroll
  for (int q = 0; q < BUCKET / 4; q++) {
    const int4 four = q * 4 < size ? bucket[q] : make_int4(0, 0, 0, 0);
    list[q * 4] = four.x, list[q * 4 + 1] = four.y, list[q * 4 + 2] = four.z, list[q * 4 + 3] = four.w;
  }
#pragma unroll
  for (int i = 0; i < BUCKET; i++)
    if (i >= size) list[i] = 0x7fffffff;
#pragma unroll
  for (int round = 0; round < BUCKET; round++)
#pragma unroll
    for (int i = round & 1; i + 1 < BUCKET; i += 2) {
      const int low = min(list[i], list[i + 1]), high = max(list[i], list[i + 1]);
      list[i] = low, list[i + 1] = high;
    }
  const int kept = limit > 0 ? min(limit, size) : size;
  if (kept < size) {
#pragma unroll
    for (int i = 0; i < BUCKET; i++)
      if (i >= kept && i < size) voxel_of_point[list[i]] = -1;
    counts[row] = kept;
  }
  const Means means{rows, pitch, type};
  if (is_double) average_few((const double*)points, channels, list, kept, means, row);
  else average_few((const float*)points, channels, list, kept, means, row);
}

// Lists what was put aside.
extern "C" __global__ void list_late(
    const int2* late, const int* totals, const int* voxel_of_point, const int* starts, int* members) {
  const int n = totals[LATE];
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    const int2 one = late[i];
    members[starts[voxel_of_point[one.x]] + one.y] = one.x;
  }
}

#define WARPS 8
#define STAGED 8  // channels

// Mean of the first `kept` points of a list, by a warp: 32 points at a time are brought to `stage`, where a lane
// a channel adds them in order.
template <class T>
__device__ void average_list(
    const T* points, int channels, const int* list, int kept, double* stage, Means means, int row) {
  const int lane = threadIdx.x & 31;
  for (int first = 0; first < means.pitch; first += STAGED) {
    double sum = 0;
    for (int base = 0; base < kept; base += 32) {
      if (base + lane < kept) {
        const T* from = points + (long long)list[base + lane] * channels + first;
#pragma unroll
        for (int c = 0; c < STAGED; c++)
          if (first + c < channels) stage[c * 33 + lane] = from[c];
      }
      __syncwarp();
      if (lane < STAGED && first + lane < channels) {
        const int here = min(kept - base, 32);
#pragma unroll 8
        for (int i = 0; i < here; i++) sum += stage[lane * 33 + i];
      }
      __syncwarp();
    }
    if (lane < STAGED && first + lane < means.pitch)
      write(means, row, first + lane, first + lane < channels ? sum / kept : 0);
  }
}

// Sorts `power` numbers, a power of two, by `team` threads from `mine` on.
template <class Sync>
__device__ __forceinline__ void sort(int* list, int power, int mine, int team, Sync sync) {
  for (int span = 2; span <= power; span *= 2)
    for (int step = span / 2; step; step /= 2) {
      sync();
      for (int i = mine; i < power; i += team) {
        const int j = i ^ step;
        if (j < i) continue;
        const int a = list[i], b = list[j];
        if ((a > b) == ((i & span) == 0)) list[i] = b, list[j] = a;
      }
    }
  sync();
}

struct OfWarp { __device__ void operator()() const { __syncwarp(); } };
struct OfBlock { __device__ void operator()() const { __syncthreads(); } };

// A warp a crowded row; a block one of more than MANY points. More points than a block can sort are counted
// against one another, which is slow and rare.
extern "C" __global__ void __launch_bounds__(256) average_crowded(
    const void* points, int is_double, int channels, const int* buckets, const int* starts, const int* members,
    int* sorted, const int* totals, const int* crowded, int limit, int* counts, int* voxel_of_point, void* rows,
    int pitch, int type) {
  __shared__ int memory[WARPS * MANY];
  __shared__ double stages[WARPS * STAGED * 33];
  const Means means{rows, pitch, type};
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, n = totals[CROWDED];
  double* stage = stages + warp * STAGED * 33;
  const auto member = [&](int row, int i) {
    return i < BUCKET ? buckets[(long long)row * BUCKET + i] : members[starts[row] + i];
  };
  const auto finish = [&](int row, const int* list, int kept) {
    if (is_double) average_list((const double*)points, channels, list, kept, stage, means, row);
    else average_list((const float*)points, channels, list, kept, stage, means, row);
    if (lane == 0) counts[row] = kept;
  };
  const auto leave = [&](const int* list, int kept, int size, int mine, int team) {
    for (int i = kept + mine; i < size; i += team) voxel_of_point[list[i]] = -1;
  };
  for (int turn = blockIdx.x * WARPS + warp; turn < n; turn += gridDim.x * WARPS) {
    const int row = crowded[turn];
    if (row < 0) continue;
    const int size = counts[row], kept = limit > 0 ? min(limit, size) : size;
    int* list = memory + warp * MANY;
    int power = 16;
    while (power < size) power *= 2;
    for (int i = lane; i < power; i += 32) list[i] = i < size ? member(row, i) : 0x7fffffff;
    sort(list, power, lane, 32, OfWarp());
    leave(list, kept, size, lane, 32);
    finish(row, list, kept);
    __syncwarp();
  }
  for (int turn = blockIdx.x; turn < n; turn += gridDim.x) {
    if (crowded[turn] >= 0) continue;
    const int row = ~crowded[turn], size = counts[row], kept = limit > 0 ? min(limit, size) : size;
    int* list = memory;
    __syncthreads();
    if (size <= WARPS * MANY) {
      int power = 2 * MANY;
      while (power < size) power *= 2;
      for (int i = threadIdx.x; i < power; i += blockDim.x) list[i] = i < size ? member(row, i) : 0x7fffffff;
      sort(list, power, threadIdx.x, blockDim.x, OfBlock());
    } else {
      list = sorted + starts[row];
      for (int i = threadIdx.x; i < size; i += blockDim.x) {
        const int one = member(row, i);
        int before = 0;
        for (int j = 0; j < size; j++) before += member(row, j) < one;
        list[before] = one;
      }
      __syncthreads();
    }
    leave(list, kept, size, threadIdx.x, blockDim.x);
    if (warp == 0) finish(row, list, kept);
    __syncthreads();
  }
}
