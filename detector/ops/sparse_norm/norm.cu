// Batch norm of a training batch over all rows, with what follows it: a summand and ReLU.
//
//   y = act((x - mean) / sqrt(variance + eps) * weight + bias + residual)
//
// Two launches each way: the first leaves sums of every channel from each of its blocks, the second adds
// them up, in the same order in every block, and goes over the rows. Nothing is atomic: the result is the
// same every time. Sums are of differences from the first row, so that a large mean costs no digits.
//
// Macros:
//   CHANNELS     of a row: 8, 16, 32, 64, 128 or 256
//   BF16         1: bfloat16, 0: float16
//   RELU, RESIDUAL   what follows

#include "../device.cuh"
#include "../half.cuh"

#define THREADS 256
#define PIECES (CHANNELS / 8)            // of 16 bytes in a row; a thread takes the same one of every row
#define TOGETHER (THREADS / PIECES)      // rows of a block at a time

#define TURNS 4                          // of a block at least

// Rows that hold anything: as many as `count` points to, if that is given, but no more than there is room for.
__device__ __forceinline__ int rows_of(int rows, const int* count) { return count ? min(*count, rows) : rows; }
// Blocks that leave sums, of as many as there are room for: sums are the same whatever the room.
__device__ __forceinline__ int parts_of(int rows, int most) {
  return min(most, (rows + TOGETHER * TURNS - 1) / (TOGETHER * TURNS));
}

struct Eight { float v[8]; };

__device__ __forceinline__ Eight unpack(uint4 x) {
  return {{low_half(x.x), high_half(x.x), low_half(x.y), high_half(x.y),
           low_half(x.z), high_half(x.z), low_half(x.w), high_half(x.w)}};
}
__device__ __forceinline__ uint4 packed(const Eight& e) {
  uint4 x;
  PACK_F32(x.x, e.v[1], e.v[0]);
  PACK_F32(x.y, e.v[3], e.v[2]);
  PACK_F32(x.z, e.v[5], e.v[4]);
  PACK_F32(x.w, e.v[7], e.v[6]);
  return x;
}

// partial[block][2][CHANNELS] = sums over the block's threads.
__device__ void leave_sums(Eight a, Eight b, float* partial) {
  __shared__ float sums[THREADS / 32][2][CHANNELS];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
#pragma unroll
  for (int o = 16; o >= PIECES; o >>= 1)
#pragma unroll
    for (int i = 0; i < 8; i++) {
      a.v[i] += __shfl_xor_sync(~0u, a.v[i], o);
      b.v[i] += __shfl_xor_sync(~0u, b.v[i], o);
    }
  if (lane < PIECES)
#pragma unroll
    for (int i = 0; i < 8; i++) {
      sums[warp][0][lane * 8 + i] = a.v[i];
      sums[warp][1][lane * 8 + i] = b.v[i];
    }
  __syncthreads();
  for (int i = threadIdx.x; i < 2 * CHANNELS; i += THREADS) {
    float total = 0;
#pragma unroll
    for (int w = 0; w < THREADS / 32; w++) total += sums[w][i / CHANNELS][i % CHANNELS];
    partial[blockIdx.x * 2 * CHANNELS + i] = total;
  }
}

// totals[2 * CHANNELS] = sums over the blocks that left any.
__device__ void add_up(const float* partial, int parts, double* totals) {
  const int SLOTS = 2 * CHANNELS, TEAMS = SLOTS < THREADS ? THREADS / SLOTS : 1;
  __shared__ double sums[TEAMS][SLOTS];
  for (int i = threadIdx.x; i < TEAMS * SLOTS; i += THREADS) {
    double total = 0;
#pragma unroll 8
    for (int p = i / SLOTS; p < parts; p += TEAMS) total += partial[p * SLOTS + i % SLOTS];
    sums[i / SLOTS][i % SLOTS] = total;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < SLOTS; i += THREADS) {
    double total = 0;
    for (int t = 0; t < TEAMS; t++) total += sums[t][i];
    totals[i] = total;
  }
  __syncthreads();
}

extern "C" __global__ void __launch_bounds__(THREADS) sum_rows(
    const uint4* x, int rows, const int* count, float* partial) {
  rows = rows_of(rows, count);
  const int parts = parts_of(rows, gridDim.x);
  if (blockIdx.x >= parts) return;
  const int piece = threadIdx.x % PIECES;
  const Eight pivot = unpack(x[piece]);
  Eight a = {}, b = {};
#pragma unroll 4
  for (int row = blockIdx.x * TOGETHER + threadIdx.x / PIECES; row < rows; row += parts * TOGETHER) {
    const Eight e = unpack(x[(long long)row * PIECES + piece]);
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const float d = e.v[i] - pivot.v[i];
      a.v[i] += d;
      b.v[i] += d * d;
    }
  }
  leave_sums(a, b, partial);
}

// statistics: [mean, 1 / sqrt(variance + eps), and a factor and a summand that stand for the whole norm]; the
// running ones and the number of batches move along.
extern "C" __global__ void __launch_bounds__(THREADS) normalize(
    const uint4* x, const float* partial, int most, int rows, const int* count, const float* weight,
    const float* bias, float eps, float momentum, float* running_mean, float* running_variance, long long* batches,
    const uint4* residual, float* statistics, uint4* y) {
  __shared__ double totals[2 * CHANNELS];
  __shared__ float scale[CHANNELS], shift[CHANNELS];
  rows = rows_of(rows, count);
  add_up(partial, parts_of(rows, most), totals);
  for (int c = threadIdx.x; c < CHANNELS; c += THREADS) {
    const u32 both = ((const u32*)x)[c / 2];
    const double pivot = c % 2 ? high_half(both) : low_half(both);
    const double offset = totals[c] / rows, variance = fmax(totals[CHANNELS + c] / rows - offset * offset, 0.0);
    const double mean = pivot + offset;
    const float inverse = (float)(1 / sqrt(variance + (double)eps));
    scale[c] = inverse * weight[c];
    shift[c] = (float)(bias[c] - mean * (double)scale[c]);
    if (blockIdx.x == 0) {
      statistics[c] = (float)mean;
      statistics[CHANNELS + c] = inverse;
      statistics[2 * CHANNELS + c] = scale[c];
      statistics[3 * CHANNELS + c] = shift[c];
      running_mean[c] += momentum * ((float)mean - running_mean[c]);
      running_variance[c] += momentum * ((float)(variance * rows / (rows - 1)) - running_variance[c]);
      if (c == 0) *batches += 1;
    }
  }
  __syncthreads();
  const int piece = threadIdx.x % PIECES;
#pragma unroll 4
  for (int row = blockIdx.x * TOGETHER + threadIdx.x / PIECES; row < rows; row += gridDim.x * TOGETHER) {
    const long long at = (long long)row * PIECES + piece;
    Eight e = unpack(x[at]);
#if RESIDUAL
    const Eight r = unpack(residual[at]);
#endif
#pragma unroll
    for (int i = 0; i < 8; i++) {
      float v = fmaf(e.v[i], scale[piece * 8 + i], shift[piece * 8 + i]);
#if RESIDUAL
      v += r.v[i];
#endif
#if RELU
      v = fmaxf(v, 0.f);
#endif
      e.v[i] = v;
    }
    y[at] = packed(e);
  }
}

// The same again, from what the statistics say; bit for bit where there was no summand.
extern "C" __global__ void __launch_bounds__(THREADS) normalize_again(
    const uint4* x, int rows, const int* count, const float* statistics, uint4* y) {
  rows = rows_of(rows, count);
  const int piece = threadIdx.x % PIECES;
  float scale[8], shift[8];
#pragma unroll
  for (int i = 0; i < 8; i++) {
    scale[i] = statistics[2 * CHANNELS + piece * 8 + i];
    shift[i] = statistics[3 * CHANNELS + piece * 8 + i];
  }
#pragma unroll 4
  for (int row = blockIdx.x * TOGETHER + threadIdx.x / PIECES; row < rows; row += gridDim.x * TOGETHER) {
    const long long at = (long long)row * PIECES + piece;
    Eight e = unpack(x[at]);
#pragma unroll
    for (int i = 0; i < 8; i++) {
      e.v[i] = fmaf(e.v[i], scale[i], shift[i]);
#if RELU
      e.v[i] = fmaxf(e.v[i], 0.f);
#endif
    }
    y[at] = packed(e);
  }
}

// What reaches the norm's output: nothing where ReLU gave 0. Without a summand that is told from the input
// alone, as it was computed and rounded, and `y` is not read.
struct Factors { float scale[8], shift[8]; };
__device__ __forceinline__ Factors factors_of(const float* statistics, int piece) {
  Factors f;
#pragma unroll
  for (int i = 0; i < 8; i++) {
    f.scale[i] = statistics[2 * CHANNELS + piece * 8 + i];
    f.shift[i] = statistics[3 * CHANNELS + piece * 8 + i];
  }
  return f;
}
__device__ __forceinline__ Eight through(uint4 gradient, const Eight& x, const Factors& f, const uint4* y, long long at) {
  Eight g = unpack(gradient);
#if RELU
#if RESIDUAL
  const Eight out = unpack(y[at]);
#else
  Eight out;
#pragma unroll
  for (int i = 0; i < 8; i++) out.v[i] = fmaf(x.v[i], f.scale[i], f.shift[i]);
  out = unpack(packed(out));
#endif
#pragma unroll
  for (int i = 0; i < 8; i++) g.v[i] = out.v[i] > 0 ? g.v[i] : 0.f;
#endif
  return g;
}

// partial: sums of the gradient, and of its product with the normalized rows.
extern "C" __global__ void __launch_bounds__(THREADS) sum_gradients(
    const uint4* gradient, const uint4* x, const uint4* y, int rows, const int* count, const float* statistics,
    float* partial) {
  rows = rows_of(rows, count);
  const int parts = parts_of(rows, gridDim.x);
  if (blockIdx.x >= parts) return;
  const int piece = threadIdx.x % PIECES;
  float mean[8], inverse[8];
#pragma unroll
  for (int i = 0; i < 8; i++) {
    mean[i] = statistics[piece * 8 + i];
    inverse[i] = statistics[CHANNELS + piece * 8 + i];
  }
  const Factors f = factors_of(statistics, piece);
  Eight a = {}, b = {};
#pragma unroll 4
  for (int row = blockIdx.x * TOGETHER + threadIdx.x / PIECES; row < rows; row += parts * TOGETHER) {
    const long long at = (long long)row * PIECES + piece;
    const Eight e = unpack(x[at]), g = through(gradient[at], e, f, y, at);
#pragma unroll
    for (int i = 0; i < 8; i++) {
      a.v[i] += g.v[i];
      b.v[i] += g.v[i] * ((e.v[i] - mean[i]) * inverse[i]);
    }
  }
  leave_sums(a, b, partial);
}

// parameters: [gradient of weight, of bias].
extern "C" __global__ void __launch_bounds__(THREADS) input_gradient(
    const uint4* gradient, const uint4* x, const uint4* y, const float* partial, int most, int rows,
    const int* count, const float* weight, const float* statistics, float* parameters, uint4* residual_gradient,
    uint4* x_gradient) {
  __shared__ double totals[2 * CHANNELS];
  __shared__ float factor[CHANNELS], slope[CHANNELS], constant[CHANNELS];
  rows = rows_of(rows, count);
  add_up(partial, parts_of(rows, most), totals);
  for (int c = threadIdx.x; c < CHANNELS; c += THREADS) {
    const float mean = statistics[c], inverse = statistics[CHANNELS + c];
    const double of_bias = totals[c], of_weight = totals[CHANNELS + c];
    // w i (g - sum(g) / n - x^ sum(g x^) / n), x^ = (x - mean) i
    factor[c] = weight[c] * inverse;
    slope[c] = (float)(-(double)factor[c] * inverse * of_weight / rows);
    constant[c] = (float)(-(double)factor[c] * of_bias / rows - (double)mean * slope[c]);
    if (blockIdx.x == 0) {
      parameters[c] = (float)of_weight;
      parameters[CHANNELS + c] = (float)of_bias;
    }
  }
  __syncthreads();
  const int piece = threadIdx.x % PIECES;
  const Factors f = factors_of(statistics, piece);
#pragma unroll 2
  for (int row = blockIdx.x * TOGETHER + threadIdx.x / PIECES; row < rows; row += gridDim.x * TOGETHER) {
    const long long at = (long long)row * PIECES + piece;
    Eight e = unpack(x[at]);
    const Eight g = through(gradient[at], e, f, y, at);
#if RESIDUAL
    residual_gradient[at] = packed(g);
#endif
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const int c = piece * 8 + i;
      e.v[i] = factor[c] * g.v[i] + (slope[c] * e.v[i] + constant[c]);
    }
    x_gradient[at] = packed(e);
  }
}
