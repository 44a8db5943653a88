// Small steps of planned inference.

typedef unsigned int u32;
typedef unsigned short u16;

#if BF16
#define CVT(d, f) asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(d) : "f"(f))
#else
#define CVT(d, f) asm("cvt.rn.f16.f32 %0, %1;" : "=h"(d) : "f"(f))
#endif

// Features of voxels in any order to the rows of the index: 16-bit rows of `pitch`, a multiple of 4,
// zero past the channels. Of a cell given twice, one row is kept.
extern "C" __global__ void place_rows(
    const int4* coordinates, const float* features, int channels, const int* count, int capacity, const u32* words,
    const int* rank, int Z, int Y, int W, int rows, u16* out, int pitch) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= min(*count, capacity)) return;
  int4 c = coordinates[i];
  if (c.x < 0) return;
  long long at = ((long long)(c.x * Z + c.y) * Y + c.z) * W + (c.w >> 5);
  int row = rank[at] + __popc(words[at] & ((1u << (c.w & 31)) - 1));
  if (row >= rows) return;
  for (int k = 0; k < pitch; k += 4) {
    float v[4];
    u16 h[4];
#pragma unroll
    for (int j = 0; j < 4; j++) v[j] = k + j < channels ? features[(long long)i * channels + k + j] : 0.f;
#pragma unroll
    for (int j = 0; j < 4; j++) CVT(h[j], v[j]);
    *(uint2*)(out + (long long)row * pitch + k) = make_uint2(h[0] | (u32)h[1] << 16, h[2] | (u32)h[3] << 16);
  }
}

// Rows (frame, z, y, x) of `channels`, `pitch` apart, to a dense map (B, Y, X, channels, Z), which
// holds zeros.
extern "C" __global__ void to_map(
    const int4* coordinates, const u16* features, int channels, int pitch, const int* count, int capacity, int Z, int Y, int X,
    u16* map) {
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
