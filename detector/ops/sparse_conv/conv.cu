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
// It may start while the kernel before it runs (`overlap` of cuda_runtime.py), which then makes:
//   follows      0: the weights; 1: the features and the residual; 2: these and the table, with all that belongs to it
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

#include "mma.cuh"

extern "C" __global__ void __launch_bounds__(WARPS * 32, RESIDENT) convolve(
    const u16* features, u32* packed, const int* table, int pitch, const u32* masks, const int* order, const int* list,
    const int* count, int capacity, const float* bias, const Out* residual, int relu, Out* out, int follows) {
  extern __shared__ __align__(128) u32 weights[];
  int lane = threadIdx.x & 31, warp = uniform(threadIdx.x >> 5), t = lane & 3;
  int column = blockIdx.y;
  const u32* mine = packed + (long long)column * STEPS * STEP_WORDS;
  u32* counters = packed + (long long)gridDim.y * STEPS * STEP_WORDS + 2 * column;  // tiles asked for, blocks done
  may_follow();

#if __CUDA_ARCH__ >= 900
  u64* barriers = (u64*)(weights + STEPS * STEP_WORDS);
  if (threadIdx.x == 0) {
    for (int i = 0; i < GROUPS; i++)
      asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(barriers + i)));
    asm volatile("fence.mbarrier_init.release.cluster;");
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    if (!follows) await_earlier();
    const u32 bytes = HALVES * STEP_WORDS * 4;
#pragma unroll 1
    for (int i = 0; i < GROUPS; i++) {
      u32 barrier = shared_address(barriers + i);
      asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes));
      asm volatile(
          "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
              shared_address(weights + i * HALVES * STEP_WORDS)),
          "l"(mine + (long long)i * HALVES * STEP_WORDS), "r"(bytes), "r"(barrier)
          : "memory");
    }
  }
#else
  for (int i = threadIdx.x; i < STEPS * STEP_WORDS / 4; i += WARPS * 32)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(weights + 4 * i)), "l"(mine + 4ll * i));
  asm volatile("cp.async.wait_all;");
  __syncthreads();
#endif

  if (follows == 2) await_earlier();
  int n = min(*count, capacity);
  const int parts = 8 / NB;  // of a listed tile
  const int tiles = list ? (n + 63) / 64 * parts : (n + 8 * NB - 1) / (8 * NB);
  // Tiles of a block lie far apart: heavy ones lie together.
  const int begin = warp * (int)gridDim.x + blockIdx.x, given = gridDim.x * WARPS;
  const char* own_bytes = (const char*)features + (PACK == 4 ? 0 : PACK == 2 ? (t & 1) * 8 : t * (CHUNK == 16 ? 8 : 16));
  bool waited = false;
  auto wait_for = [&](int step) {
#if __CUDA_ARCH__ >= 900
    if (!waited) wait_weights(shared_address(barriers + step / HALVES));
#endif
  };
  auto first_of = [&](int turn) {
    if (turn >= tiles) return n;
    return (list ? uniform(list[turn / parts]) * parts + turn % parts : turn) * 8 * NB;
  };
  int turn = begin, first = first_of(begin);  // a listed tile may begin past the end
  Walk walk;
  walk.start(masks, first, n);
  if (follows == 1) await_earlier();
  while (turn < tiles) {
    int next;  // asked for a tile ahead, as is what tells its steps
#if DEALT
    if (lane == 0) {
      await_earlier();  // which sets the counters
      next = given + (int)atomicAdd(&counters[0], 1u);
    }
#else
    next = turn + given;
    const int next_first = first_of(next);
#endif
    float sum[MB][NB][4] = {};
    Places places;
    places.ask(order, first, n);
    // Products of one step, features of the DEPTH - 1 after it on their way, rows of the DEPTH after those. Turns
    // of DEPTH steps have no way out between them, or the compiler would wait at each step for all that was asked
    // for. Past the last step there are no rows, and fetching none costs next to nothing.
    Inputs in[DEPTH];
    Rows rows[DEPTH];
    int steps[DEPTH], asked[DEPTH];
    auto ask = [&](int slot) {
      asked[slot] = walk.next();
      load_rows(rows[slot], table, pitch, first, n, asked[slot]);
    };
    auto fetch = [&](int slot) {
      steps[slot] = asked[slot];
      gather(in[slot], rows[slot], own_bytes, steps[slot]);
      ask(slot);
    };
    int turns = (walk.count() + DEPTH - 1) / DEPTH;
#pragma unroll
    for (int s = 0; s < DEPTH; s++) ask(s);
#pragma unroll
    for (int s = 0; s < DEPTH - 1; s++) fetch(s);
    if (residual) places.prefetch(residual + column * TILE);
#pragma unroll 1
    for (; turns > 0; turns--) {
#pragma unroll
      for (int s = 0; s < DEPTH - 1; s++) wait_for(max(steps[s], 0));
      wait_for(max(asked[DEPTH - 1], 0));
#pragma unroll
      for (int s = 0; s < DEPTH; s++) {
        fetch((s + DEPTH - 1) % DEPTH);
        multiply(sum, in[s], weights + max(steps[s], 0) * STEP_WORDS);
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
    Walk coming;
#if DEALT
    next = uniform(lane == 0 ? next : 0);
    const int next_first = first_of(next);
    write(sum, places, bias, residual, relu, out, column);
    coming.start(masks, next_first, n);
#else
    coming.start(masks, next_first, n);
    write(sum, places, bias, residual, relu, out, column);
#endif
    walk = coming;
    turn = next;
    first = next_first;
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
  may_follow();
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
