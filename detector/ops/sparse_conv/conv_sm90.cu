// The convolution of `conv.cu` for Hopper GPUs: all weights stay in shared memory, products are `wgmma`'s.
//
// Four warps compute 64 output rows. Features go from global memory straight to the registers in which
// `wgmma` wants them: the channels' order in the inner product is free, so every thread reads 16 adjacent
// bytes of two rows. The steps of all tiles of a warpgroup form one stream, in which rows of the table
// are asked for 2 * DEPTH - 1 steps ahead, features DEPTH - 1 steps ahead, across the ends of tiles.
//
// Macros: CIN, COUT, TILE, OFFSETS, RESIDENT, BF16 as in `conv.cu`, and
//   GROUPS_OF_WARPS   warpgroups of a block
//   DEPTH             steps whose features are on their way or in use, at least 2

#define WARP_OF_TILE (threadIdx.x >> 5 & 3)
#include "wgmma.cuh"

#define ROWS 64

// Tiles are given out as warpgroups ask for them, for some hold many more neighbours than others. Whoever asks
// gets what was asked for one tile earlier.
struct Tiles {
  u32* counter;  // how many were asked for
  int* slots;    // of the warpgroup, two in shared memory
  int given, pending, turn;  // given: how many tiles were dealt out at the start

  __device__ __forceinline__ void ask() {
    if ((threadIdx.x & 127) == 0) pending = given + (int)atomicAdd(counter, 1u);
  }
  __device__ __forceinline__ int next() {
    if ((threadIdx.x & 127) == 0) slots[turn] = pending;
    asm volatile("bar.sync %0, 128;" ::"r"(1 + (threadIdx.x >> 7)) : "memory");
    int tile = slots[turn];
    turn ^= 1;
    ask();
    return tile;
  }
};

// The steps at which the tiles of a warpgroup see anything, one tile after another. Every tile has one step
// at least, so that its rows are written.
struct Stream {
  Tiles tiles;
  u32 left[MASK_WORDS], coming[MASK_WORDS][2];
  int first, later, count, step;  // first row of the tile, of the next one
  const u32* masks;

  __device__ __forceinline__ void ask() {
#pragma unroll
    for (int i = 0; i < MASK_WORDS; i++)
#pragma unroll
      for (int r = 0; r < 2; r++)
        coming[i][r] = later + 32 * r < count ? __ldg(masks + ((later >> 5) + r) * MASK_WORDS + i) : 0;
  }
  __device__ __forceinline__ bool over() const {
    return is_empty(left) && (HALVES == 1 || step < 0 || (step + 1) % HALVES == 0);
  }
  // The next step, -1 after the last of all.
  __device__ __forceinline__ int next() {
    if (over()) {
      step = -1;
      if (later >= count) return -1;
      first = later;
#pragma unroll
      for (int i = 0; i < MASK_WORDS; i++) left[i] = coming[i][0] | coming[i][1];
      if (is_empty(left)) left[0] = 1;
      later = tiles.next() * ROWS;
      ask();
    }
    if (HALVES > 1 && step >= 0 && (step + 1) % HALVES) return ++step;
    return step = pop_step(left);
  }
};

extern "C" __global__ void __launch_bounds__(GROUPS_OF_WARPS * 128, RESIDENT) convolve(
    const u16* features, u32* packed, const int* table, int pitch, const u32* masks,
    const int* count, int capacity, const float* bias, const u16* residual, int relu, u16* out) {
  LET_LATER_START();
  extern __shared__ __align__(128) u32 weights[];
  const int column = blockIdx.y;
  const u32* mine = packed + (long long)column * STEPS * STEP_WORDS;
  u32* counters = packed + (long long)gridDim.y * STEPS * STEP_WORDS + 2 * column;  // tiles asked for, blocks done
  __shared__ int slots[GROUPS_OF_WARPS][2];
  u64* barriers = (u64*)(weights + STEPS * STEP_WORDS);
  if (threadIdx.x == 0) {
    for (int i = 0; i < GROUPS; i++) set_up_barrier(shared_address(barriers + i), 1);
    asm volatile("fence.mbarrier_init.release.cluster;");
  }
  __syncthreads();
  if (threadIdx.x == 0)
#pragma unroll 1
    for (int i = 0; i < GROUPS; i++) {
      const int at = i * HALVES * STEP_WORDS;
      copy_there(weights + at, mine + at, HALVES * STEP_WORDS * 4, shared_address(barriers + i));
    }

  WAIT_FOR_EARLIER();  // weights are there from the start
  const int n = min(*count, capacity), tiles = (n + ROWS - 1) / ROWS;
  const int group = threadIdx.x >> 7;
  // A block begins with adjacent tiles, for their voxels share neighbours; as many as keep all blocks busy.
  const int together = max(1, min(GROUPS_OF_WARPS, (tiles + (int)gridDim.x - 1) / (int)gridDim.x));
  const u32 nothing = (u32)relu >> 1;
  const char* own_bytes = own_bytes_of(features);
  if (group < together && (int)(blockIdx.x * together + group) < tiles) {
    Stream stream{{counters, slots[group], (int)gridDim.x * together, 0, 0}};
    stream.masks = masks;
    stream.count = n;
    stream.step = -1;
    stream.later = (blockIdx.x * together + group) * ROWS;
#pragma unroll
    for (int i = 0; i < MASK_WORDS; i++) stream.left[i] = 0;
    stream.tiles.ask();
    stream.ask();
    Inputs in[DEPTH];
    int steps[DEPTH], asked[DEPTH], at[DEPTH], firsts[DEPTH];  // and the first rows of their tiles
    int2 rows[DEPTH];
    float sum[TILE / 2] = {};
    auto ask = [&](int slot) {
      int step = stream.next();
      rows[slot] = load_rows(table, pitch, stream.first, n, step);
      asked[slot] = step < 0 || !stream.over() ? step : step | LAST;
      firsts[slot] = stream.first;
    };
    auto fetch = [&](int slot) {
      steps[slot] = asked[slot];
      at[slot] = firsts[slot];
      gather(in[slot], rows[slot], own_bytes, steps[slot] < 0 ? 0 : steps[slot] & (LAST - 1));
    };
#pragma unroll
    for (int s = 0; s < DEPTH; s++) ask(s);
#pragma unroll
    for (int s = 0; s < DEPTH - 1; s++) { fetch(s); ask(s); }
    bool more = true, waited = false;
    while (more) {
#pragma unroll
      for (int s = 0; s < DEPTH; s++) {
        if (steps[s] < 0) { more = false; break; }
        const int step = steps[s] & (LAST - 1);
        if (!waited) wait_phase(shared_address(barriers + step / HALVES), 0);
        start_products(sum, in[s], shared_address(weights + step * STEP_WORDS), nothing);
        fetch((s + DEPTH - 1) % DEPTH);
        ask((s + DEPTH - 1) % DEPTH);
        end_products();
        if (steps[s] & LAST) {
          finish(sum, at[s], n, column, bias, residual, relu, out);
          // Weights of steps that the first tile skipped may still be on their way.
          if (!waited) {
#pragma unroll 1
            for (int i = 0; i < GROUPS; i++) wait_phase(shared_address(barriers + i), 0);
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
    for (int i = 0; i < GROUPS; i++) wait_phase(shared_address(barriers + i), 0);
    // The last block leaves the counters as it found them.
    __threadfence();
    if (atomicAdd(&counters[1], 1u) == gridDim.x - 1) counters[0] = counters[1] = 0;
  }
}
