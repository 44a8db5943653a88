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

#define COUNTERS 2  // tiles asked for, blocks done

#include "products.cuh"
#include "pack.cuh"

extern "C" __global__ void __launch_bounds__(WARPS * 32, RESIDENT) convolve(
    const u16* features, u32* packed, const int* table, int pitch, const u32* masks, const int* order, const int* list,
    const int* count, int capacity, const float* bias, const Out* residual, int relu, Out* out, int follows) {
  extern __shared__ __align__(128) u32 weights[];
  int lane = threadIdx.x & 31, warp = uniform(threadIdx.x >> 5);
  int column = blockIdx.y;
  const u32* mine = packed + (long long)column * STEPS * STEP_WORDS;
  u32* counters = packed + (long long)gridDim.y * STEPS * STEP_WORDS + COUNTERS * column;
  begin(weights, mine, follows);
  int n = min(*count, capacity);
  const int parts = 8 / NB;  // of a listed tile
  const int tiles = list ? (n + 63) / 64 * parts : (n + 8 * NB - 1) / (8 * NB);
  const int given = gridDim.x * WARPS;
  const char* own_bytes = own_bytes_of(features);
  bool waited = false;
  auto wait_for = [&](int step) {
    if (!waited) wait_weights(weights, step / HALVES);
  };
  auto first_of = [&](int turn) {
    if (turn >= tiles) return n;
    return (list ? uniform(list[turn / parts]) * parts + turn % parts : turn) * 8 * NB;
  };
  // Tiles of a block lie far apart: heavy ones lie together.
  int turn = warp * (int)gridDim.x + blockIdx.x, first = first_of(turn);  // a listed tile may begin past the end
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
    add_products(sum, walk, table, pitch, first, n, own_bytes, weights, wait_for, [&] {
      if (residual) places.prefetch(residual + column * TILE);
    });
    // Weights of steps that the first tile skipped may still be on their way.
    if (!waited) wait_all_weights(weights);
    waited = true;
    Walk coming;
#if DEALT
    next = uniform(lane == 0 ? next : 0);
    const int next_first = first_of(next);
    write(sum, places, bias, residual, relu, out, column, ALL_EIGHTS);
    coming.start(masks, next_first, n);
#else
    coming.start(masks, next_first, n);
    write(sum, places, bias, residual, relu, out, column, ALL_EIGHTS);
#endif
    walk = coming;
    turn = next;
    first = next_first;
  }
  // Memory that is being written to must not be given back: the loader waits for its copies.
  if (threadIdx.x == 0 && !waited) wait_all_weights(weights);
#if DEALT
  // The last block leaves the counters as it found them.
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    if (atomicAdd(&counters[1], 1u) == gridDim.x - 1) counters[0] = counters[1] = 0;
  }
#endif
}
