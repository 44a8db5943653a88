// CUDA on a CPU, for tests on machines without a GPU: in place of `detector/ops/device.cuh`. Every thread of a
// block is a thread of the process, blocks run one after another; warps meet at barriers where they would
// vote or shuffle. Slow, and blind to races between blocks: for results on small inputs.
#pragma once
#include <algorithm>
#include <barrier>
#include <cmath>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned short u16;
typedef unsigned char u8;


struct Index { int x = 0, y = 0, z = 0; };
inline thread_local Index threadIdx, blockIdx;
inline Index blockDim, gridDim;
struct int2 { int x, y; };
struct int3 { int x, y, z; };
struct float3 { float x, y, z; };
struct int4 { int x, y, z, w; };
struct uint4 { u32 x, y, z, w; };
inline int2 make_int2(int x, int y) { return {x, y}; }
inline float3 make_float3(float x, float y, float z) { return {x, y, z}; }
inline int3 make_int3(int x, int y, int z) { return {x, y, z}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
using std::max;
using std::min;

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static

struct Warp {
  std::barrier<> meeting{32};
  u64 said[32] = {};
  bool here[32];
  Warp() { std::fill(here, here + 32, true); }
};
inline std::unique_ptr<std::barrier<>> block_meeting;
inline std::vector<std::unique_ptr<Warp>> warps;
inline Warp& own_warp() { return *warps[threadIdx.x >> 5]; }
inline int own_lane() { return threadIdx.x & 31; }

inline void __syncthreads() { block_meeting->arrive_and_wait(); }
inline void __syncwarp() { own_warp().meeting.arrive_and_wait(); }

// What `read` makes of what all lanes say.
template <class T, class Read> auto ask_warp(T value, Read read) {
  Warp& warp = own_warp();
  u64 bytes = 0;
  memcpy(&bytes, &value, sizeof value);
  warp.said[own_lane()] = bytes;
  warp.meeting.arrive_and_wait();
  auto answer = read(warp);
  warp.meeting.arrive_and_wait();
  return answer;
}
template <class T> T shuffled(T value, int from) {
  return ask_warp(value, [=](Warp& warp) {
    T got;
    memcpy(&got, &warp.said[from & 31], sizeof got);
    return got;
  });
}
template <class T> T __shfl_sync(u32, T value, int lane) { return shuffled(value, lane); }
template <class T> T __shfl_up_sync(u32, T value, int by) {
  return shuffled(value, own_lane() >= by ? own_lane() - by : own_lane());
}
template <class T> T __shfl_down_sync(u32, T value, int by) {
  return shuffled(value, own_lane() + by < 32 ? own_lane() + by : own_lane());
}
template <class T> T __shfl_xor_sync(u32, T value, int by) { return shuffled(value, own_lane() ^ by); }
inline u32 __ballot_sync(u32, bool yes) {
  return ask_warp(yes, [](Warp& warp) {
    u32 votes = 0;
    for (int i = 0; i < 32; i++)
      if (warp.here[i] && warp.said[i]) votes |= 1u << i;
    return votes;
  });
}
inline bool __any_sync(u32 mask, bool yes) { return __ballot_sync(mask, yes) != 0; }
inline u32 __reduce_add_sync(u32, u32 value) {
  return ask_warp(value, [](Warp& warp) {
    u32 sum = 0;
    for (int i = 0; i < 32; i++)
      if (warp.here[i]) sum += (u32)warp.said[i];
    return sum;
  });
}
inline u32 __reduce_or_sync(u32, u32 value) {
  return ask_warp(value, [](Warp& warp) {
    u32 all = 0;
    for (int i = 0; i < 32; i++)
      if (warp.here[i]) all |= (u32)warp.said[i];
    return all;
  });
}
inline u32 __reduce_min_sync(u32, u32 value) {
  return ask_warp(value, [](Warp& warp) {
    u32 least = ~0u;
    for (int i = 0; i < 32; i++)
      if (warp.here[i]) least = min(least, (u32)warp.said[i]);
    return least;
  });
}

inline int __popc(u32 v) { return __builtin_popcount(v); }
inline int __popcll(u64 v) { return __builtin_popcountll(v); }
inline void may_follow() {}
inline void await_earlier() {}
inline u32 __umulhi(u32 a, u32 b) { return (u64)a * b >> 32; }
inline u32 __funnelshift_r(u32 low, u32 high, u32 by) { return (u32)(((u64)high << 32 | low) >> (by & 31)); }
inline int __ffs(int v) { return __builtin_ffs(v); }
template <class T> T __ldg(const T* p) { return *p; }
template <class T> T __ldcg(const T* p) { return *p; }
template <class T, class V> T atomicOr(T* p, V v) { return __atomic_fetch_or(p, (T)v, __ATOMIC_SEQ_CST); }
template <class T, class V> T atomicAdd(T* p, V v) { return __atomic_fetch_add(p, (T)v, __ATOMIC_SEQ_CST); }
template <class T> T atomicMin(T* p, T v) {
  T old = __atomic_load_n(p, __ATOMIC_SEQ_CST);
  while (v < old && !__atomic_compare_exchange_n(p, &old, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
  }
  return old;
}
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline u64 load_relaxed(const u64* p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
inline void store_relaxed(u64* p, u64 v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }

template <class Kernel, class... Arguments> void run(int grid, int threads, Kernel kernel, Arguments... arguments) {
  gridDim = {grid, 1, 1};
  blockDim = {threads, 1, 1};
  for (int block = 0; block < grid; block++) {
    block_meeting = std::make_unique<std::barrier<>>(threads);
    warps.clear();
    for (int w = 0; w < threads / 32; w++) warps.push_back(std::make_unique<Warp>());
    std::vector<std::thread> all;
    for (int t = 0; t < threads; t++)
      all.emplace_back([=] {
        threadIdx = {t, 0, 0};
        blockIdx = {block, 0, 0};
        kernel(arguments...);
        // Who has returned is no longer waited for.
        own_warp().here[own_lane()] = false;
        own_warp().meeting.arrive_and_drop();
        block_meeting->arrive_and_drop();
      });
    for (auto& thread : all) thread.join();
  }
}
