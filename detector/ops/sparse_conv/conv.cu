// Sparse convolution in 16-bit floats, or in float32 rounded to TF32, on tensor cores, accumulated in float32.
//
// out[p] = act(bias + sum over k of W[k]^T features[table[k, o]] + residual[p]), p = order[o], or o without an order
//
// A warp computes 8 * NB output rows. Channels are the rows of the matrix product and voxels its
// columns (mma.m16n8k16), which lets every thread end up with adjacent channels of a voxel. The
// weights of all offsets stay in shared memory, in the order in which `mma` wants them; features
// go from global memory straight to registers: the channels' order in the inner product is free,
// so it is chosen such that every thread reads 16 adjacent bytes. For less than 16 channels several
// offsets share one product. Tiles whose voxels see nothing through an offset skip it.
//
// Macros:
//   CIN          16-bit words of one row that comes in: its channels, with TF32 twice as many; 4, 8, 16, 32, 64,
//                128 or 256
//   COUT         channels of one row that goes out
//   TILE         output channels of a block, a multiple of 16 that divides COUT
//   OFFSETS      K
//   NB           eights of rows a warp: 2, 4 or 8
//   WARPS        warps of a block
//   RESIDENT     blocks that a multiprocessor should hold
//   DEPTH        steps whose features are on their way or in use, at least 2
//   DEALT        1: tiles are given out as warps ask for them, for some hold many more neighbours than
//                others; what that costs pays where there are many. 0: every so many
//   BF16         1: bfloat16, 0: float16
//   TF32         1: float32
//   CLUSTER      blocks that share the fetching of weights; more than one from sm_90 on

#include "../device.cuh"
#include "../half.cuh"

#if TF32
typedef float Out;
#else
typedef u16 Out;
#endif
#define MB (TILE / 16)                        // products that cover the output channels
#define CHUNK (CIN > 64 ? 64 : CIN)           // channels taken in one step
#define HALVES (CIN / CHUNK)
#define PACK (CIN < 16 ? 16 / CIN : 1)        // offsets taken in one step
#define KS (CHUNK < 16 ? 1 : CHUNK / 16)      // inner products a step
#define GROUPS ((OFFSETS + PACK - 1) / PACK)
#define STEPS (GROUPS * HALVES)
#define FRAGMENT 128                          // u32 of one 16 x 16 piece of weights
#define STEP_WORDS (MB * KS * FRAGMENT)
#define MASK_WORDS ((OFFSETS + 31) / 32)

__device__ __forceinline__ void mma(float (&d)[4], const uint4 a, u32 b0, u32 b1) {
#if TF32
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
#else
  asm("mma.sync.aligned.m16n8k16.row.col.f32." HALF "." HALF ".f32 "
#endif
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}

// Bytes of a row; zeros where `row` is negative.
__device__ __forceinline__ void fetch16(u32* v, const char* features, int row, int offset) {
  uint4 x = make_uint4(0, 0, 0, 0);
  if (row >= 0) x = __ldg((const uint4*)(features + (long long)row * (CIN * 2) + offset));
  v[0] = x.x; v[1] = x.y; v[2] = x.z; v[3] = x.w;
}
__device__ __forceinline__ void fetch8(u32* v, const char* features, int row) {
  uint2 x = make_uint2(0, 0);
  if (row >= 0) x = __ldg((const uint2*)(features + (long long)row * (CIN * 2)));
  v[0] = x.x; v[1] = x.y;
}

struct Rows { int at[NB]; };  // of this thread's column in each eight

// Which rows the tile's voxels see at a step; none at step -1.
__device__ __forceinline__ void load_rows(Rows& rows, const int* table, int pitch, int first, int count, int step) {
  int lane = threadIdx.x & 31, k = step < 0 ? OFFSETS : step / HALVES * PACK;
  if (PACK == 4) k += lane & 3;
  if (PACK == 2) k += (lane & 3) >> 1;
  int last = k < OFFSETS ? count : 0, o = first + (lane >> 2);
  const int* from = table + (long long)k * pitch + o;
#pragma unroll
  for (int j = 0; j < NB; j++) rows.at[j] = o + 8 * j < last ? from[8 * j] : -1;
}

struct Inputs { u32 v[NB][KS * 2]; };  // of one step

// `features` points to this thread's bytes of row 0.
__device__ __forceinline__ void gather(Inputs& in, const Rows& rows, const char* features, int step) {
  const int half = HALVES > 1 ? step & (HALVES - 1) : 0;
#pragma unroll
  for (int j = 0; j < NB; j++)
    if (CHUNK <= 16) fetch8(in.v[j], features, rows.at[j]);
    else
#pragma unroll
      for (int i = 0; i < KS / 2; i++) fetch16(in.v[j] + 4 * i, features, rows.at[j], half * CHUNK * 2 + i * 64);
}

__device__ __forceinline__ void multiply(float (&sum)[MB][NB][4], const Inputs& in, const u32* weights) {
  int lane = threadIdx.x & 31;
  const uint4* w = (const uint4*)weights + lane;
#pragma unroll
  for (int s = 0; s < KS; s++)
#pragma unroll
    for (int m = 0; m < MB; m++) {
      uint4 a = w[(m * KS + s) * 32];
#pragma unroll
      for (int j = 0; j < NB; j++) mma(sum[m][j], a, in.v[j][2 * s], in.v[j][2 * s + 1]);
    }
}

// Walks over the steps at which a tile sees anything.
struct Walk {
  u32 left[MASK_WORDS];
  int step;
  __device__ __forceinline__ void start(const u32* masks, int first, int count) {
    step = -1;
#pragma unroll
    for (int i = 0; i < MASK_WORDS; i++) {
      left[i] = 0;
#pragma unroll
      for (int j = 0; j < (NB + 3) / 4; j++)
        if (first + 32 * j < count) left[i] |= masks[((first >> 5) + j) * MASK_WORDS + i];
    }
  }
  __device__ __forceinline__ int next() {  // -1 after the last
    if (HALVES > 1 && step >= 0 && (step + 1) % HALVES) return ++step;
    step = -1;
#pragma unroll
    for (int i = 0; i < MASK_WORDS; i++)
      if (left[i] && step < 0) {
        int k = 32 * i + __ffs(left[i]) - 1;
        step = k / PACK * HALVES;
        if (PACK == 1) left[i] &= left[i] - 1;
        else left[i] &= ~(((1u << PACK) - 1) << (k / PACK * PACK & 31));
      }
    return step;
  }
};

// A thread's channels of its voxel e in the j-th eight.
__device__ __forceinline__ void write(
    const float (&sum)[MB][NB][4], const float (&offset)[2 * MB], int j, int e, const Out* residual, int relu,
    Out* out) {
  float value[2 * MB];
#pragma unroll
  for (int i = 0; i < 2 * MB; i++) value[i] = sum[i / 2][j][e + 2 * (i & 1)] + offset[i];
#if TF32
  if (residual)
#pragma unroll
    for (int m = 0; m < MB; m++) {
      const float2 r = ((const float2*)residual)[m];
      value[2 * m] += r.x;
      value[2 * m + 1] += r.y;
    }
#pragma unroll
  for (int i = 0; i < 2 * MB; i++) value[i] = relu ? fmaxf(value[i], 0.f) : value[i];
#pragma unroll
  for (int m = 0; m < MB; m++) ((float2*)out)[m] = make_float2(value[2 * m], value[2 * m + 1]);
#else
  u32 both[MB];
#pragma unroll
  for (int m = 0; m < MB; m++) {
    float low = value[2 * m], high = value[2 * m + 1];
    if (residual) {
      const u32 r = ((const u32*)residual)[m];
      low += low_half(r);
      high += high_half(r);
    }
    if (relu) { low = fmaxf(low, 0.f); high = fmaxf(high, 0.f); }
    PACK_F32(both[m], high, low);
  }
  if (MB == 4) *(uint4*)out = make_uint4(both[0], both[1 % MB], both[2 % MB], both[3 % MB]);
  else if (MB == 2) *(uint2*)out = make_uint2(both[0], both[1 % MB]);
  else
#pragma unroll
    for (int m = 0; m < MB; m++) ((u32*)out)[m] = both[m];
#endif
}

#if CLUSTER > 1 || __CUDA_ARCH__ >= 900
#include "cluster.cuh"
#else
#define IN_CLUSTERS
#endif

#if __CUDA_ARCH__ >= 900
__device__ __forceinline__ void wait_weights(u32 barrier) {
  asm volatile(
      "{.reg .pred p;\nAGAIN: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], 0;\n@!p bra AGAIN;}" ::"r"(barrier)
      : "memory");
}
#endif

extern "C" __global__ void IN_CLUSTERS __launch_bounds__(WARPS * 32, RESIDENT) convolve(
    const u16* features, u32* packed, const int* table, int pitch, const u32* masks, const int* order, const int* list,
    const int* count, int capacity, const float* bias, const Out* residual, int relu, Out* out) {
  extern __shared__ __align__(128) u32 weights[];
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, t = lane & 3, g = lane >> 2;
  int column = blockIdx.y;
  const u32* mine = packed + (long long)column * STEPS * STEP_WORDS;
  u32* counters = packed + (long long)gridDim.y * STEPS * STEP_WORDS + 2 * column;  // tiles asked for, blocks done

#if __CUDA_ARCH__ >= 900
  u64* barriers = (u64*)(weights + STEPS * STEP_WORDS);
  if (threadIdx.x == 0) {
    for (int i = 0; i < GROUPS; i++)
      asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(barriers + i)));
    asm volatile("fence.mbarrier_init.release.cluster;");
  }
  meet_cluster();
  if (threadIdx.x == 0) {
    const u32 bytes = HALVES * STEP_WORDS * 4;
#pragma unroll 1
    for (int i = 0; i < GROUPS; i++) {
      u32 barrier = shared_address(barriers + i);
      asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes));
      if (i % CLUSTER == (int)cluster_rank())
        copy_to_all(
            shared_address(weights + i * HALVES * STEP_WORDS), mine + (long long)i * HALVES * STEP_WORDS, bytes, barrier);
    }
  }
#else
  for (int i = threadIdx.x; i < STEPS * STEP_WORDS / 4; i += WARPS * 32)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(weights + 4 * i)), "l"(mine + 4ll * i));
  asm volatile("cp.async.wait_all;");
  __syncthreads();
#endif

  int n = min(*count, capacity);
  const int parts = 8 / NB;  // of a listed tile
  const int tiles = list ? (n + 63) / 64 * parts : (n + 8 * NB - 1) / (8 * NB);
  // A block begins with adjacent tiles, for their voxels share neighbours; as many as keep all blocks busy.
  // They ask for the next one a tile ahead.
  int together = max(1, min(WARPS, (tiles + (int)gridDim.x - 1) / (int)gridDim.x));
  const char* own_bytes = (const char*)features + (PACK == 4 ? 0 : PACK == 2 ? (t & 1) * 8 : t * (CHUNK == 16 ? 8 : 16));
  bool waited = false;
  auto wait_for = [&](int step) {
#if __CUDA_ARCH__ >= 900
    if (!waited) wait_weights(shared_address(barriers + step / HALVES));
#endif
  };
  if (warp < together)
    for (int turn = blockIdx.x * together + warp, next_turn; turn < tiles;
         turn = DEALT ? __shfl_sync(~0u, next_turn, 0) : turn + (int)gridDim.x * together) {
      if (DEALT && lane == 0) next_turn = gridDim.x * together + (int)atomicAdd(&counters[0], 1u);
      const int tile = list ? list[turn / parts] * parts + turn % parts : turn, first = tile * 8 * NB;
      if (first >= n) continue;  // the last listed tile may be cut short
      float sum[MB][NB][4] = {};
      Walk walk;
      walk.start(masks, first, n);
      Rows rows;
      // Products of one step, features of the next on their way, rows of the one after those. Past
      // the last step there are no rows, and fetching none costs next to nothing.
      Inputs in[DEPTH];
      int steps[DEPTH];
      Rows ahead[DEPTH - 1];
#pragma unroll
      for (int s = 0; s < DEPTH - 1; s++) {
        steps[s] = walk.next();
        load_rows(ahead[s], table, pitch, first, n, steps[s]);
      }
#pragma unroll
      for (int s = 0; s < DEPTH - 1; s++) gather(in[s], ahead[s], own_bytes, steps[s]);
      int later = walk.next();
      load_rows(rows, table, pitch, first, n, later);
      bool more = true;
      while (more) {
#pragma unroll
        for (int s = 0; s < DEPTH; s++) {
          if (steps[s] < 0) { more = false; break; }
          const int free = (s + DEPTH - 1) % DEPTH;
          steps[free] = later;
          gather(in[free], rows, own_bytes, later);
          later = walk.next();
          load_rows(rows, table, pitch, first, n, later);
          wait_for(steps[s]);
          multiply(sum, in[s], weights + steps[s] * STEP_WORDS);
        }
      }
      // Weights of steps that the first tile skipped may still be on their way.
#if __CUDA_ARCH__ >= 900
      if (!waited) {
#pragma unroll 1
        for (int i = 0; i < GROUPS; i++) wait_weights(shared_address(barriers + i));
        waited = true;
      }
#endif
      float offset[2 * MB];  // of this thread's output channels
#pragma unroll
      for (int i = 0; i < 2 * MB; i++) offset[i] = bias ? bias[column * TILE + g * 2 * MB + i] : 0.f;
#pragma unroll
      for (int j = 0; j < NB; j++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
          int o = first + j * 8 + 2 * t + e;
          if (o >= n) continue;
          if (order) o = order[o];
          long long place = (long long)o * COUT + column * TILE + g * 2 * MB;
          write(sum, offset, j, e, residual ? residual + place : nullptr, relu, out + place);
        }
    }
#if __CUDA_ARCH__ >= 900
  // Memory that is being written to must not be given back: the loader waits for its copies.
  if (threadIdx.x == 0 && !waited)
#pragma unroll 1
    for (int i = 0; i < GROUPS; i++) wait_weights(shared_address(barriers + i));
#endif
#if DEALT
  // The last block leaves the counters as it found them.
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    if (atomicAdd(&counters[1], 1u) == gridDim.x - 1) counters[0] = counters[1] = 0;
  }
#endif
}

// Weights (OFFSETS, CIN, COUT), float32 or 16 bit, into the order of `convolve`:
// [column of TILE][step][m][s][lane][register][2].
//   turned    the given weights are (OFFSETS, COUT, CIN)
//   flipped   offset k takes the given weights' OFFSETS - 1 - k
//   scale     may be null: a factor of each output channel
//   source    input channels that the given weights have; the others up to CIN are zero
//   target    output channels that they have; the others up to COUT are zero
extern "C" __global__ void pack(
    const void* given, int is_float32, int turned, int flipped, const float* scale, int source, int target,
    u32* packed) {
  const int total = COUT / TILE * STEPS * STEP_WORDS;
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= total) {  // the counters of `convolve`
    if (i < total + 2 * (COUT / TILE)) packed[i] = 0;
    return;
  }
  int reg = i & 3, lane = i >> 2 & 31, rest = i >> 7;
  int s = rest % KS, m = rest / KS % MB, step = rest / (KS * MB) % STEPS, column = rest / (KS * MB * STEPS);
  int g = lane >> 2, t = lane & 3, group = step / HALVES, half = step % HALVES;
  int channel_out = column * TILE + g * 2 * MB + 2 * m + (reg & 1);
  float value[2] = {};
#if TF32
  const int words = 1, width = 2;  // numbers of a register, 16-bit words of a number
#else
  const int words = 2, width = 1;
#endif
  for (int e = 0; e < words; e++) {
    const int within = words * (reg >> 1) + e;
    int k = group, channel;
    if (PACK == 4) { k = group * 4 + t; channel = within; }
    else if (PACK == 2) { k = group * 2 + (t >> 1); channel = 4 / width * (t & 1) + within; }
    else if (CHUNK == 16) channel = 4 / width * t + within;
    else channel = (half * CHUNK + 32 * (s >> 1) + 8 * t + 4 * (s & 1)) / width + within;
    if (k < OFFSETS && channel < source && channel_out < target) {
      int from = flipped ? OFFSETS - 1 - k : k;
      long long at = turned ? ((long long)from * target + channel_out) * source + channel
                            : ((long long)from * source + channel) * target + channel_out;
      if (is_float32) value[e] = ((const float*)given)[at];
      else value[e] = low_half(((const u16*)given)[at]);
      if (scale) value[e] *= scale[channel_out];
    }
  }
#if TF32
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(packed[i]) : "f"(value[0]));
#else
  u32 both;
  PACK_F32(both, value[1], value[0]);
  packed[i] = both;
#endif
}
