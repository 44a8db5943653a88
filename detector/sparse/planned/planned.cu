// Small steps of planned inference.

#include "../../ops/device.cuh"
#include "../../ops/narrow.cuh"

// A plan's numbers: 16-bit floats (BF16 says which), or float32 where FLOAT32 is 1.
#if FLOAT32
typedef float number;
__device__ __forceinline__ number number_of(float value) { return value; }
#else
typedef u16 number;
__device__ __forceinline__ number number_of(float value) { return BF16 ? bfloat16_bits(value) : float16_bits(value); }
#endif

struct alignas(4 * sizeof(number)) Four { number v[4]; };

// A batch's voxels, and how many they are, to where a graph reads them; both as words of 4 bytes.
extern "C" __global__ void take_voxels(
    const u32* coordinates, const u32* features, int voxels, int channels, u32* to_coordinates, u32* to_features,
    int* count) {
  const int first = blockIdx.x * blockDim.x + threadIdx.x, stride = gridDim.x * blockDim.x;
  if (first == 0) *count = voxels;
#pragma unroll 4
  for (int i = first; i < 4 * voxels; i += stride) to_coordinates[i] = coordinates[i];
#pragma unroll 4
  for (int i = first; i < channels * voxels; i += stride) to_features[i] = features[i];
}

// Features of voxels in any order to the rows of the index: rows of `pitch` numbers, a multiple of 4,
// zero past the channels. Of a cell given twice, one row is kept.
extern "C" __global__ void place_rows(
    const int4* coordinates, const float* features, int channels, const int* count, int capacity, const u32* words,
    const int* rank, int Z, int Y, int W, int rows, number* out, int pitch) {
  may_follow();
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= min(*count, capacity)) return;
  int4 c = coordinates[i];
  if (c.x < 0) return;
  long long at = ((long long)(c.x * Z + c.y) * Y + c.z) * W + (c.w >> 5);
  int row = rank[at] + __popc(words[at] & ((1u << (c.w & 31)) - 1));
  if (row >= rows) return;
  for (int k = 0; k < pitch; k += 4) {
    Four four;
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const float value = k + j < channels ? features[(long long)i * channels + k + j] : 0.f;
      four.v[j] = number_of(value);
    }
    *(Four*)(out + (long long)row * pitch + k) = four;
  }
}

// Rows (frame, z, y, x) of `channels`, `pitch` apart, to a dense map (B, Y, X, channels, Z), which
// holds zeros.
extern "C" __global__ void to_map(
    const int4* coordinates, const number* features, int channels, int pitch, const int* count, int capacity, int Z, int Y,
    int X, number* map) {
  int n = min(*count, capacity);
  for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < (long long)n * channels;
       i += (long long)gridDim.x * blockDim.x) {
    int row = i / channels, channel = i % channels;
    int4 c = coordinates[row];
    map[(((long long)(c.x * Y + c.z) * X + c.w) * channels + channel) * Z + c.y] =
        features[(long long)row * pitch + channel];
  }
}

// most[i] = the larger of most[i] and counts[i]: what a capacity would have had to be.
extern "C" __global__ void remember(const int* counts, int* most, int n) {
  int i = threadIdx.x;
  if (i < n) most[i] = max(most[i], counts[i]);
}
