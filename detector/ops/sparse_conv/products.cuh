// What both convolutions by `mma` do: weights into shared memory, and a tile's products, step by step.

#include "mma.cuh"

// Weights come in groups, each with a barrier that tells when it is there; before sm_90, all at once.
#ifndef BARRIERS_AT
#define BARRIERS_AT (STEPS * STEP_WORDS)  // words after the weights' begin
#endif
__device__ __forceinline__ u32 barrier_of(const u32* weights, int group) {
  return shared_address((const u64*)(weights + BARRIERS_AT) + group);
}
__device__ __forceinline__ void set_up_weights(const u32* weights) {
#if __CUDA_ARCH__ >= 900
  if (threadIdx.x == 0) {
    for (int i = 0; i < GROUPS; i++)
      asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(barrier_of(weights, i)));
    asm volatile("fence.mbarrier_init.release.cluster;");
  }
  __syncthreads();
#endif
}
__device__ __forceinline__ void load_weights(u32* weights, const u32* from) {
#if __CUDA_ARCH__ >= 900
  if (threadIdx.x) return;
  const u32 bytes = HALVES * STEP_WORDS * 4;
#pragma unroll 1
  for (int i = 0; i < GROUPS; i++) {
    const u32 barrier = barrier_of(weights, i);
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes));
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
            shared_address(weights + i * HALVES * STEP_WORDS)),
        "l"(from + (long long)i * HALVES * STEP_WORDS), "r"(bytes), "r"(barrier)
        : "memory");
  }
#else
  for (int i = threadIdx.x; i < STEPS * STEP_WORDS / 4; i += blockDim.x)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(weights + 4 * i)), "l"(from + 4ll * i));
  asm volatile("cp.async.wait_all;");
  __syncthreads();
#endif
}
// Of a group, for the first time they are loaded or, with `again`, the second, fourth ...
__device__ __forceinline__ void wait_weights(const u32* weights, int group, int again = 0) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "{.reg .pred p;\nAGAIN: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@!p bra AGAIN;}" ::"r"(
          barrier_of(weights, group)), "r"(again)
      : "memory");
#endif
}
__device__ __forceinline__ void wait_all_weights(const u32* weights, int again = 0) {
#pragma unroll 1
  for (int i = 0; i < GROUPS; i++) wait_weights(weights, i, again);
}

// A block's first step: asks for the weights, and waits for the table if that is still in the making. `follows` as
// `conv.cu` describes it.
__device__ __forceinline__ void begin(u32* weights, const u32* from, int follows) {
  if (follows < 2) may_follow();  // else who follows may count on the table, too: once it is there
  set_up_weights(weights);
  if (!follows && threadIdx.x == 0) await_earlier();
  load_weights(weights, from);
  if (follows == 2) {
    await_earlier();
    may_follow();
  }
}

// This thread's bytes of row 0.
__device__ __forceinline__ const char* own_bytes_of(const u16* features) {
  const int t = threadIdx.x & 3;
  return (const char*)features + (PACK == 4 ? 0 : PACK == 2 ? (t & 1) * 8 : t * (CHUNK == 16 ? 8 : 16));
}

// Adds the products of the tile's steps that `walk` tells.
//   wait_for    step: returns when its weights are there
//   meanwhile   called while features are on their way
//
// Products of one step, features of the DEPTH - 1 after it on their way, rows of the DEPTH after those. Turns of DEPTH
// steps have no way out between them, or the compiler would wait at each step for all that was asked for. Past the
// last step there are no rows, and fetching none costs next to nothing.
template <class WaitFor, class Meanwhile> __device__ __forceinline__ void add_products(
    float (&sum)[MB][NB][4], Walk& walk, const int* table, int pitch, int first, int n, const char* own_bytes,
    const u32* weights, WaitFor wait_for, Meanwhile meanwhile) {
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
  meanwhile();
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
}
