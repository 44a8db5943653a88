// The convolution of `conv.cu` for Hopper GPUs where the weights of all offsets fit into shared memory: products are
// `wgmma`'s, which take no issue slots while they run. A warpgroup computes 64 output rows at a time.
//
// Features go from global memory straight to the registers in which `wgmma` wants them: the channels' order in
// the inner product is free, so every thread reads 16 adjacent bytes of two rows. The steps of a warpgroup's tiles form one stream, in which rows of the table are asked for
// 2 * DEPTH - 1 steps ahead, features DEPTH - 1 steps ahead, across the ends of tiles.
//
// Macros: CIN (16, 32 or 64), COUT, TILE, OFFSETS (at most 32), RESIDENT, BF16 as in `conv.cu`, and
//   GROUPS_OF_WARPS   warpgroups of a block
//   DEPTH             steps whose features are on their way or in use, at least 2

#include "wgmma.cuh"

#define ROWS 64

#include "cluster.cuh"

// A step: the offset in the lower 5 bits, then whether it is the last of its tile, then the tile; -1: none.
#define OFFSET_OF(step) ((step) & 31)
#define IS_LAST(step) ((step) & 32)
#define TILE_OF(step) ((step) >> 6)

// The steps at which a warpgroup's tiles see anything, one tile after another. Every tile has one step at least,
// so that its rows are written. Tiles are given out as warpgroups ask for them, a tile ahead, for some hold many
// more neighbours than others.
struct Stream {
  const u32* masks;
  const int* list;
  u32* counter;          // how many tiles were asked for
  volatile int* slots;   // two of the warpgroup, in shared memory
  u32 left, coming;      // offsets of the tile that are left, and those of the next one
  int rows, next_turn, tiles, given, tile, next_tile, place, pending;

  __device__ __forceinline__ void ask() {
    if ((threadIdx.x & 127) == 0) pending = given + (int)atomicAdd(counter, 1u);
    if (next_turn < tiles) {
      next_tile = list ? __ldg(list + next_turn) : next_turn;
      const u32* both = masks + 2 * next_tile;
      coming = __ldg(both) | (next_tile * ROWS + 32 < rows ? __ldg(both + 1) : 0);
    }
  }
  // To the next tile; false after the last.
  __device__ __forceinline__ bool advance() {
    if (next_turn >= tiles) return false;
    tile = next_tile;
    left = max(coming, 1u);
    if ((threadIdx.x & 127) == 0) slots[place] = pending;
    asm volatile("bar.sync %0, 128;" ::"r"(1 + (threadIdx.x >> 7)) : "memory");
    next_turn = slots[place];
    place ^= 1;
    ask();
    return true;
  }
};

extern "C" __global__ void IN_CLUSTERS __launch_bounds__(GROUPS_OF_WARPS * 128, RESIDENT) convolve(
    const u16* features, u32* packed, const int* table, int pitch, const u32* masks, const int* order, const int* list,
    const int* count, int capacity, const float* bias, const u16* residual, int relu, u16* out) {
  extern __shared__ __align__(128) u32 weights[];
  __shared__ int slots[GROUPS_OF_WARPS][2];
  const int column = blockIdx.y;
  const u32* mine = packed + (long long)column * STEPS * STEP_WORDS;
  u32* counters = packed + (long long)gridDim.y * STEPS * STEP_WORDS + 2 * column;  // tiles asked for, blocks done
  const u32 barriers = shared_address(weights + STEPS * STEP_WORDS);
  if (threadIdx.x == 0) {
    for (int i = 0; i < OFFSETS; i++) set_up_barrier(barriers + 8 * i, 1);
    asm volatile("fence.mbarrier_init.release.cluster;");
  }
  meet_cluster();
  if (threadIdx.x == 0)
#pragma unroll 1
    for (int i = OFFSETS - 1; i >= 0; i--) {  // in the order in which steps come
      asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barriers + 8 * i), "r"(STEP_WORDS * 4) : "memory");
      if (i % CLUSTER == (int)cluster_rank())
        copy_to_all(
            shared_address(weights + i * STEP_WORDS), mine + (long long)i * STEP_WORDS, STEP_WORDS * 4, barriers + 8 * i);
    }
  const int n = min(*count, capacity), tiles = (n + ROWS - 1) / ROWS;
  const int group = threadIdx.x >> 7, lane = threadIdx.x & 31, own = (threadIdx.x >> 5 & 3) * 16 + (lane >> 2);
  // A block begins with adjacent tiles, for their voxels share neighbours; as many as keep all blocks busy.
  const int together = max(1, min(GROUPS_OF_WARPS, (tiles + (int)gridDim.x - 1) / (int)gridDim.x));
  const int begin = blockIdx.x * together + group;
  const u32 nothing = (u32)relu >> 1;  // see `start_products`
  if (group < together && begin < tiles) {
    Stream stream{masks, list, counters, slots[group], 0, 0, n, begin, tiles, (int)gridDim.x * together};
    stream.ask();
    const char* own_bytes = own_bytes_of(features);
    Inputs in[DEPTH];
    int steps[DEPTH], asked[DEPTH];
    int2 rows[DEPTH];
    const int *low = table, *high = table;  // this thread's columns
    float sum[TILE / 2] = {};
    auto ask = [&](int slot) {
      if (!stream.left) {
        if (!stream.advance()) { asked[slot] = -1; return; }
        const int o = stream.tile * ROWS + own;  // columns beyond the last are as good as the last
        low = table + min(o, n - 1);
        high = table + min(o + 8, n - 1);
      }
      const int k = 31 - __clz(stream.left);
      stream.left ^= 1u << k;
      const long long at = (long long)k * pitch;
      rows[slot] = make_int2(__ldg(low + at), __ldg(high + at));
      asked[slot] = stream.tile << 6 | (stream.left ? 0 : 32) | k;
    };
    auto fetch = [&](int slot) {
      steps[slot] = asked[slot];
      if (steps[slot] < 0) return;
gather(in[slot], rows[slot], own_bytes, 0);
    };
#pragma unroll
    for (int s = 0; s < DEPTH; s++) ask(s);
#pragma unroll
    for (int s = 0; s < DEPTH - 1; s++) { fetch(s); ask(s); }
    bool more = true, waited = false;
    while (more) {
#pragma unroll
      for (int s = 0; s < DEPTH; s++) {
        const int step = steps[s];
        if (step < 0) { more = false; break; }
        if (!waited) wait_phase(barriers + 8 * OFFSET_OF(step), 0);
        start_products(sum, in[s], shared_address(weights) + OFFSET_OF(step) * (STEP_WORDS * 4), nothing);
        fetch((s + DEPTH - 1) % DEPTH);
        ask((s + DEPTH - 1) % DEPTH);
        end_products();
        if (IS_LAST(step)) {
          finish(sum, TILE_OF(step) * ROWS + own, n, order, column, bias, residual, relu, out);
          // Weights of steps that the first tile skipped may still be on their way.
          if (!waited) {
#pragma unroll 1
            for (int i = 0; i < OFFSETS; i++) wait_phase(barriers + 8 * i, 0);
            waited = true;
          }
        }
      }
    }
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    // Memory that is being written to must not be given back: the loader waits for its copies.
#pragma unroll 1
    for (int i = 0; i < OFFSETS; i++) wait_phase(barriers + 8 * i, 0);
    // The last block leaves the counters as it found them.
    __threadfence();
    if (atomicAdd(&counters[1], 1u) == gridDim.x - 1) counters[0] = counters[1] = 0;
  }
}
