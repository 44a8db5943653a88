// Sparse convolution as in `conv.cu`, for few rows. There a tile's way through all offsets is what takes time, while
// most warps have no tile: so SPLIT warps, a team, share the offsets of one, and add up what each of them has.
//
// The sums take the place of the weights in shared memory, which are loaded again should a block have another tile.
//
// Macros: those of `conv.cu` but RESIDENT and DEALT, and
//   SPLIT        warps of a team

#define SUM_WORDS (WARPS * NB * MB * 32 * 4)
#define BARRIERS_AT (SUM_WORDS > STEPS * STEP_WORDS ? SUM_WORDS : STEPS * STEP_WORDS)
#define TEAMS (WARPS / SPLIT)

#include "products.cuh"
#include "pack.cuh"

// Eight j of a tile's rows is added up and written by the j % SPLIT-th warp of its team.
__device__ __forceinline__ u32 eights_of(int part) {
  u32 eights = 0;
#pragma unroll
  for (int j = 0; j < NB; j++) eights |= (u32)(j % SPLIT == part) << j;
  return eights;
}

// A warp's own eights get what the others of its team have summed up, in a sequence that never changes.
//   sums   of the team: of each warp those of all eights
__device__ __forceinline__ void add_up(float (&sum)[MB][NB][4], float4* sums, int team, int part) {
  const int lane = threadIdx.x & 31;
  auto place = [&](int warp, int j, int m) { return sums + ((warp * NB + j) * MB + m) * 32 + lane; };
#pragma unroll
  for (int j = 0; j < NB; j++)
    if (j % SPLIT != part)
#pragma unroll
      for (int m = 0; m < MB; m++) {
        const float(&v)[4] = sum[m][j];
        *place(part, j, m) = make_float4(v[0], v[1], v[2], v[3]);
      }
  asm volatile("bar.sync %0, %1;" ::"r"(1 + team), "n"(SPLIT * 32) : "memory");
#pragma unroll
  for (int j = 0; j < NB; j++)
    if (j % SPLIT == part)
#pragma unroll
      for (int p = 0; p < SPLIT; p++)
        if (p != part)
#pragma unroll
          for (int m = 0; m < MB; m++) {
            const float4 v = *place(p, j, m);
            sum[m][j][0] += v.x;
            sum[m][j][1] += v.y;
            sum[m][j][2] += v.z;
            sum[m][j][3] += v.w;
          }
}

extern "C" __global__ void __launch_bounds__(WARPS * 32, 1) convolve(
    const u16* features, const u32* packed, const int* table, int pitch, const u32* masks, const int* order, const int*,
    const int* count, int capacity, const float* bias, const Out* residual, int relu, Out* out, int follows) {
  extern __shared__ __align__(128) u32 weights[];
  const int warp = uniform(threadIdx.x >> 5), team = warp / SPLIT, part = warp % SPLIT, column = blockIdx.y;
  const u32* mine = packed + (long long)column * STEPS * STEP_WORDS;
  float4* sums = (float4*)weights + team * SPLIT * NB * MB * 32;
  begin(weights, mine, follows);
  const int n = min(*count, capacity), tiles = (n + 8 * NB - 1) / (8 * NB), given = gridDim.x * TEAMS;
  const char* own_bytes = own_bytes_of(features);
  int turn = 0;
  // Tiles of a block lie far apart: heavy ones lie together.
#pragma unroll 1
  for (int tile = team * gridDim.x + blockIdx.x; turn * given < tiles; tile += given, turn++) {
    if (turn) {
#if __CUDA_ARCH__ >= 900
      asm volatile("fence.proxy.async;" ::: "memory");  // copies come after what threads read and wrote
#endif
      __syncthreads();
      load_weights(weights, mine);
    }
    const int first = tile < tiles ? tile * 8 * NB : n;
    Walk walk;
    walk.start(masks, first, n);
    walk.keep(part, SPLIT);
    if (follows == 1) await_earlier();
    float sum[MB][NB][4] = {};
    Places places;
    places.ask(order, first, n);
    add_products(
        sum, walk, table, pitch, first, n, own_bytes, weights,
        [&](int step) { wait_weights(weights, step / HALVES, turn & 1); },
        [&] {
          if (residual && part == 0) places.prefetch(residual + column * TILE);
        });
#pragma unroll 1
    for (int i = warp; i < GROUPS; i += WARPS) wait_weights(weights, i, turn & 1);
    __syncthreads();  // nobody reads weights any more, nor are any on their way
    if (first >= n) continue;
    add_up(sum, sums, team, part);
    write(sum, places, bias, residual, relu, out, column, eights_of(part));
  }
  // Memory that is being written to must not be given back: the loader waits for its copies.
  if (threadIdx.x == 0 && turn == 0) wait_all_weights(weights);
}
