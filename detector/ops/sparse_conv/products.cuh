// What both convolutions by `mma` do: weights into shared memory, and a tile's products, step by step.

#include "mma.cuh"
#include "barriers.cuh"

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
    for (int i = 0; i < GROUPS; i++) set_up_barrier(barrier_of(weights, i), 1);
    asm volatile("fence.mbarrier_init.release.cluster;");
  }
  __syncthreads();
#endif
}
__device__ __forceinline__ void load_weights(u32* weights, const u32* from) {
#if __CUDA_ARCH__ >= 900
  if (threadIdx.x) return;
  const int words = HALVES * STEP_WORDS;
#pragma unroll 1
  for (int i = 0; i < GROUPS; i++)
    copy_there(weights + i * words, from + (long long)i * words, words * 4, barrier_of(weights, i));
#else
  for (int i = threadIdx.x; i < STEPS * STEP_WORDS / 4; i += blockDim.x)
    asm volatile(
        "cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(weights + 4 * i)), "l"(from + 4ll * i));
  asm volatile("cp.async.wait_all;");
  __syncthreads();
#endif
}
// Of a group; `phase` is 1 where they are loaded for the second, fourth, ... time.
__device__ __forceinline__ void wait_weights(const u32* weights, int group, int phase = 0) {
#if __CUDA_ARCH__ >= 900
  wait_phase(barrier_of(weights, group), phase);
#endif
}
__device__ __forceinline__ void wait_all_weights(const u32* weights) {
#pragma unroll 1
  for (int i = 0; i < GROUPS; i++) wait_weights(weights, i);
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
