// Columns of a kernel map's table in an order in which adjacent ones see something through the same offsets: a
// convolution's tile then has fewer offsets at which any of its voxels sees something. Columns move within
// windows, so that voxels stay near those whose features they share.
//
// Macros:
//   OFFSETS   of the table, at most 32
//   RUN       offsets of an entry (`runs.cuh`); 1 where it isn't set
//   WINDOW    columns that are sorted together, one a thread: a power of two from 64 on

#ifndef RUN
#define RUN 1
#endif
#define ENTRIES (OFFSETS / RUN)
#define AT_ONCE 9  // of them, which pass through shared memory together

// The smallest thread gets the smallest of the block's keys (Batcher's bitonic sort).
__device__ __forceinline__ u32 sorted(u32 key, u32 (*said)[WINDOW]) {
  const int tid = threadIdx.x;
  int turn = 0;
#pragma unroll
  for (int size = 2; size <= WINDOW; size *= 2)
#pragma unroll
    for (int by = size / 2; by; by /= 2) {
      u32 other;
      if (by >= 32) {
        said[turn][tid] = key;
        __syncthreads();
        other = said[turn][tid ^ by];
        turn ^= 1;
      } else {
        other = __shfl_xor_sync(~0u, key, by);
      }
      key = ((tid & by) == 0) == ((tid & size) == 0) ? min(key, other) : max(key, other);
    }
  __syncthreads();
  return key;
}

// A mask's place among masks: as in a Gray code, of two that follow one another few bits differ. The middle
// third of the offsets counts least: there, most voxels on a surface see the same.
__device__ __forceinline__ u32 place_of(u32 mask) {
  const int third = OFFSETS / 3, middle = OFFSETS - 2 * third;
  const u32 low = mask & ((1u << third) - 1), high = mask >> (OFFSETS - third);
  u32 place = (high << third | low) << middle | (mask >> third & ((1u << middle) - 1));
  for (int by = 1; by < 32; by *= 2) place ^= place >> by;
  return place;
}

struct Ordering {
  u32 said[2][WINDOW];
  int staged[AT_ONCE][WINDOW];
};

// Writes a block's columns [first, first + WINDOW) in order, as many as there are; `mask` says through which
// offsets this thread's column sees anything, `entry_of(i)` what.
//   out[i * pitch + p] = entry i of column order[p], masks[p / 32] as in `tables.cu`
template <class EntryOf>
__device__ __forceinline__ void write_in_order(
    Ordering& shared, int first, int n, u32 mask, EntryOf entry_of, int* out, int pitch, u32* masks, int* order) {
  const int tid = threadIdx.x, o = first + tid;
  // Columns beyond the count stay behind the others.
  const u32 place = place_of(mask) << (32 - OFFSETS);
  const u32 key = (o < n ? place & ~(WINDOW - 1u) : ~(WINDOW - 1u)) | tid;
  const int from = sorted(key, shared.said) & (WINDOW - 1);  // where this thread's new column comes from
  u32 *to = shared.said[0], *seen = shared.said[1];
  to[from] = tid;
  seen[tid] = mask;
  __syncthreads();
  const int own = to[tid];  // where this thread's old column goes
  const u32 all = __reduce_or_sync(~0u, seen[from]);
  if ((tid & 31) == 0 && o < n) masks[o >> 5] = all;
  if (o < n) order[o] = first + from;
#pragma unroll
  for (int start = 0; start < ENTRIES; start += AT_ONCE) {
#pragma unroll
    for (int i = start; i < min(ENTRIES, start + AT_ONCE); i++) shared.staged[i - start][own] = entry_of(i);
    __syncthreads();
#pragma unroll
    for (int i = start; i < min(ENTRIES, start + AT_ONCE); i++)
      if (o < n) out[(long long)i * pitch + o] = shared.staged[i - start][tid];
    __syncthreads();
  }
}
