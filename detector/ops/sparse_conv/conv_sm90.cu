// The convolution of `conv.cu` for Hopper GPUs, where the weights of all offsets and output channels don't fit
// into shared memory at once: they pass through it in a ring, from which all warpgroups of a block take each
// step's, for the block's tile of 64 rows a warpgroup. Every input row is then fetched once, not once for each
// part of the output channels.
//
// Features go from global memory straight to the registers in which `wgmma` wants them: the channels' order in
// the inner product is free, so every thread reads 16 adjacent bytes of two rows. The steps of all tiles of a
// block form one stream, in which rows of the table are asked for 2 * DEPTH - 1 steps ahead, features
// DEPTH - 1 steps ahead, across the ends of tiles.
//
// Macros: CIN, COUT, TILE, OFFSETS, BF16 as in `conv.cu`, and
//   GROUPS_OF_WARPS   warpgroups of a block
//   DEPTH             steps whose features are on their way or in use, at least 2
//   STAGES            steps whose weights the ring holds; what it leaves of the multiprocessor's memory caches
//                     features

#include "wgmma.cuh"
#include "pack.cuh"

#define ROWS (64 * GROUPS_OF_WARPS)
#define REGISTERS (GROUPS_OF_WARPS == 4 ? 112 : GROUPS_OF_WARPS == 3 ? 160 : 240)  // of a thread that multiplies

// The steps at which the tiles of a block see anything, one tile after another. Every tile has one step
// at least, so that its rows are written.
struct Stream {
  u32 left[MASK_WORDS], own[MASK_WORDS];  // of the tile; of this warpgroup's 64 rows
  u32 coming[MASK_WORDS];                 // of a lane's 32 rows of the next tile
  int first, stride, count, step;
  const u32* masks;

  __device__ __forceinline__ void ask(int at) {
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int i = 0; i < MASK_WORDS; i++)
      coming[i] = lane < ROWS / 32 && at + 32 * lane < count ? __ldg(masks + ((at >> 5) + lane) * MASK_WORDS + i) : 0;
  }
  __device__ __forceinline__ void start(const u32* masks_, int first_, int stride_, int count_) {
    masks = masks_; first = first_ - stride_; stride = stride_; count = count_; step = -1;
#pragma unroll
    for (int i = 0; i < MASK_WORDS; i++) left[i] = 0;
    ask(first_);
  }
  __device__ __forceinline__ bool over() const {
    return is_empty(left) && (HALVES == 1 || step < 0 || (step + 1) % HALVES == 0);
  }
  // The next step, -1 after the last of all.
  __device__ __forceinline__ int next() {
    if (over()) {
      step = -1;
      if (first + stride >= count) return -1;
      first += stride;
      const bool mine = (threadIdx.x & 31) >> 1 == threadIdx.x >> 7;
#pragma unroll
      for (int i = 0; i < MASK_WORDS; i++) {
        left[i] = __reduce_or_sync(~0u, coming[i]);
        own[i] = __reduce_or_sync(~0u, mine ? coming[i] : 0);
      }
      if (is_empty(left)) left[0] = 1;
      ask(first + stride);
    }
    if (HALVES > 1 && step >= 0 && (step + 1) % HALVES) return ++step;
    int popped;
    pop_step(left, popped);
    return step = popped;
  }
  // Whether this warpgroup's rows see anything at the step.
  __device__ __forceinline__ bool sees() const {
    const int k = step / HALVES * PACK;
    u32 word = 0;
#pragma unroll
    for (int i = 0; i < MASK_WORDS; i++)
      if (k / 32 == i) word = own[i];
    return word >> (k & 31) & ((1u << PACK) - 1);
  }
};

extern "C" __global__ void __launch_bounds__(GROUPS_OF_WARPS * 128 + 128, 1) convolve(
    const u16* features, const u32* packed, const int* table, int pitch, const u32* masks, const int* order, const int* list,
    const int* count, int capacity, const float* bias, const u16* residual, int relu, u16* out, int follows) {
  extern __shared__ __align__(128) u32 weights[];  // STAGES steps' at a time, in a ring
  const int column = blockIdx.y, warp = uniform(threadIdx.x >> 5);
  const u32* mine = packed + (long long)column * STEPS * STEP_WORDS;
  const u32 full = shared_address(weights + STAGES * STEP_WORDS), empty = full + 8 * STAGES;
  if (follows < 2) may_follow();  // else who follows may count on the table, too: once it is there
  if (threadIdx.x == 0) {
    for (int i = 0; i < STAGES; i++) {
      set_up_barrier(full + 8 * i, 1);
      set_up_barrier(empty + 8 * i, 4 * GROUPS_OF_WARPS);
    }
    asm volatile("fence.mbarrier_init.release.cluster;");
  }
  __syncthreads();
  if (follows) await_earlier();
  if (follows == 2) may_follow();
  const int n = min(*count, capacity), stride = gridDim.x * ROWS;
  int first = blockIdx.x * ROWS;
  if (first >= n) return;
  Stream stream;
  stream.start(masks, first, stride, n);
  if (warp >= 4 * GROUPS_OF_WARPS) {  // a warp of the last warpgroup does nothing but fetch weights
    asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
    if (!follows) await_earlier();
    int place = 0, phase = 1;  // which a barrier that nobody has arrived at has behind it
    int step = warp == 4 * GROUPS_OF_WARPS ? stream.next() : -1;
#pragma unroll 1
    for (; step >= 0; step = stream.next()) {
      wait_phase(empty + 8 * place, phase);
      if ((threadIdx.x & 31) == 0)
        copy_there(weights + place * STEP_WORDS, mine + (long long)step * STEP_WORDS, STEP_WORDS * 4, full + 8 * place);
      __syncwarp();
      if (++place == STAGES) { place = 0; phase ^= 1; }
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
    const u32 nothing = (u32)relu >> 1;  // see `start_products`
    const char* own_bytes = own_bytes_of(features);
    Inputs in[DEPTH];
    int steps[DEPTH], asked[DEPTH];
    int2 rows[DEPTH];
    float sum[TILE / 2] = {};
    auto ask = [&](int slot) {
      int step = stream.next();
      const bool sees = step >= 0 && stream.sees();
      rows[slot] = load_rows(table, pitch, stream.first, n, sees ? step : -1);
      asked[slot] = step < 0 ? -1 : step | (stream.over() ? LAST : 0) | (sees ? SEES : 0);
    };
    auto fetch = [&](int slot) {
      steps[slot] = asked[slot];
      gather(in[slot], rows[slot], own_bytes, steps[slot] < 0 ? 0 : steps[slot] & (SEES - 1));
    };
#pragma unroll
    for (int s = 0; s < DEPTH; s++) ask(s);
#pragma unroll
    for (int s = 0; s < DEPTH - 1; s++) { fetch(s); ask(s); }
    int stage = 0, phase = 0;
    bool more = true;
    while (more) {
#pragma unroll
      for (int s = 0; s < DEPTH; s++) {
        const int step = steps[s];
        if (step < 0) { more = false; break; }
        wait_phase(full + 8 * stage, phase);
        start_products(sum, in[s], shared_address(weights + stage * STEP_WORDS), nothing);
        fetch((s + DEPTH - 1) % DEPTH);
        ask((s + DEPTH - 1) % DEPTH);
        end_products();
        if ((threadIdx.x & 31) == 0) arrive_at(empty + 8 * stage);
        if (++stage == STAGES) { stage = 0; phase ^= 1; }
        if (step & LAST) {
          const int own = first + (threadIdx.x >> 5) * 16 + ((threadIdx.x & 31) >> 2);
          finish(sum, own, n, order, column, bias, residual, relu, out);
          first += stride;
        }
      }
    }
  }
}
