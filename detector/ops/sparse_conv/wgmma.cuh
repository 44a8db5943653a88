// Sparse convolution by `wgmma`, the asynchronous product of Hopper's tensor cores: 64 rows at a time, the
// weights read from shared memory by the tensor cores themselves. The pieces of `conv_sm90.cu`.

#include "steps.cuh"
#include "barriers.cuh"

#define FRAGMENT (8 * TILE)                   // u32 of 16 x TILE weights
#define STEP_WORDS (KS * FRAGMENT)
#define NB (TILE / 8)

// sum (64, TILE) += a (64, 16) * b (16, TILE)
#define D4(i) "+f"(sum[i]), "+f"(sum[i + 1]), "+f"(sum[i + 2]), "+f"(sum[i + 3])
#define D16(i) D4(i), D4(i + 4), D4(i + 8), D4(i + 12)
#define OPERANDS(a0, a1, a2, a3, b) \
  "{" a0 ", " a1 ", " a2 ", " a3 "}, " b ", p, 1, 1, 0;}"
#define WGMMA(n) "{.reg .pred p; setp.eq.u32 p, 0, 0; wgmma.mma_async.sync.aligned.m64n" n "k16.f32." HALF "." HALF " "
__device__ __forceinline__ void wgmma(float (&sum)[TILE / 2], u32 a0, u32 a1, u32 a2, u32 a3, u64 b) {
#if TILE == 16
  asm volatile(WGMMA("16") "{%0, %1, %2, %3, %4, %5, %6, %7}, " OPERANDS("%8", "%9", "%10", "%11", "%12")
               : D4(0), D4(4) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b));
#elif TILE == 32
  asm volatile(WGMMA("32") "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
               OPERANDS("%16", "%17", "%18", "%19", "%20")
               : D16(0) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b));
#elif TILE == 64
  asm volatile(WGMMA("64") "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
               "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
               OPERANDS("%32", "%33", "%34", "%35", "%36")
               : D16(0), D16(16) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b));
#else
  asm volatile(WGMMA("128") "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
               "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
               "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
               "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
               OPERANDS("%64", "%65", "%66", "%67", "%68")
               : D16(0), D16(16), D16(32), D16(48) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b));
#endif
}

// Of weights in shared memory: pieces of 8 columns x 8 inner elements, 128 bytes each, two along the inner
// dimension next to one another.
__device__ __forceinline__ u64 descriptor(u32 address) {
  return (u64)(address >> 4 & 0x3fff) | (u64)(128 >> 4) << 16 | (u64)(256 >> 4) << 32;
}

// Of one step: two rows' bytes as they were loaded. They are sorted into the order of `wgmma` when they are
// used: that any earlier would wait for them.
struct Inputs { u32 v[2][2 * KS]; };

// Rows that a thread's two rows of the tile see at a step; none at step -1.
__device__ __forceinline__ int2 load_rows(const int* table, int pitch, int first, int count, int step) {
  const int k = own_offset(step), last = k < OFFSETS ? count : 0;
  const int o = first + (threadIdx.x >> 5) * 16 + ((threadIdx.x & 31) >> 2);
  const int* from = table + (long long)k * pitch + o;
  return make_int2(o < last ? __ldg(from) : -1, o + 8 < last ? __ldg(from + 8) : -1);
}

// `features` points to this thread's bytes of row 0; what is missing is zero.
__device__ __forceinline__ void gather(Inputs& in, int2 rows, const char* features, int step) {
  const int half = HALVES > 1 ? step & (HALVES - 1) : 0;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const int row = r ? rows.y : rows.x;
    const char* from = features + (long long)row * (CIN * 2) + half * CHUNK * 2;
    u32* v = in.v[r];
    if (CHUNK <= 16)
      asm volatile(
          "{.reg .pred p; setp.ge.s32 p, %2, 0; mov.u32 %0, 0; mov.u32 %1, 0; "
          "@p ld.global.nc.v2.u32 {%0, %1}, [%3];}" : "=&r"(v[0]), "=&r"(v[1]) : "r"(row), "l"(from));
    else
#pragma unroll
      for (int i = 0; i < KS / 2; i++)
        asm volatile(
            "{.reg .pred p; setp.ge.s32 p, %4, 0; mov.u32 %0, 0; mov.u32 %1, 0; mov.u32 %2, 0; mov.u32 %3, 0; "
            "@p ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%5];}"
            : "=&r"(v[(4 * i) % (2 * KS)]), "=&r"(v[(4 * i + 1) % (2 * KS)]), "=&r"(v[(4 * i + 2) % (2 * KS)]),
              "=&r"(v[(4 * i + 3) % (2 * KS)])
            : "r"(row), "l"(from + i * 64));
  }
}

// In a step:
#define LAST (1 << 20)  // the last of its tile
#define SEES (1 << 19)  // this warpgroup's rows see something

__device__ __forceinline__ bool is_empty(const u32 (&left)[MASK_WORDS]) {
  u32 any = 0;
#pragma unroll
  for (int i = 0; i < MASK_WORDS; i++) any |= left[i];
  return !any;
}

// sum += one step's product, still under way at the end.
//   nothing   zero, which the compiler can't know: it would else sort a step's bytes, a mere renaming to it, as
//             soon as they are asked for, and wait for them there
__device__ __forceinline__ void start_products(float (&sum)[TILE / 2], const Inputs& in, u32 weights, u32 nothing) {
  u32 a[4 * KS];
#pragma unroll
  for (int i = 0; i < 4 * KS; i++) a[i] = in.v[i & 1][i >> 1] ^ nothing;
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
  for (int i = 0; i < KS; i++)
    wgmma(sum, a[4 * i], a[4 * i + 1], a[4 * i + 2], a[4 * i + 3], descriptor(weights + i * FRAGMENT * 4));
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void end_products() { asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory"); }

__device__ __forceinline__ void load_words(u32 (&v)[NB], const u32* from) {
  if (NB == 2) {
    const uint2 x = *(const uint2*)from;
    v[0] = x.x; v[1] = x.y;
  } else
#pragma unroll
    for (int i = 0; i < NB / 4; i++) {
      const uint4 x = ((const uint4*)from)[i];
      v[(4 * i) % NB] = x.x; v[(4 * i + 1) % NB] = x.y; v[(4 * i + 2) % NB] = x.z; v[(4 * i + 3) % NB] = x.w;
    }
}

// Writes a thread's rows `own` and own + 8.
__device__ __forceinline__ void finish(
    float (&sum)[TILE / 2], int own, int n, const int* order, int column, const float* bias, const u16* residual,
    int relu, u16* out) {
  const int channel = column * TILE + (threadIdx.x & 3) * (TILE / 4);
  float4 add[NB / 2];
#pragma unroll
  for (int i = 0; i < NB / 2; i++)
    add[i] = bias ? __ldg((const float4*)(bias + channel) + i) : make_float4(0.f, 0.f, 0.f, 0.f);
  int to[2];
#pragma unroll
  for (int r = 0; r < 2; r++) to[r] = own + 8 * r >= n ? -1 : order ? __ldg(order + own + 8 * r) : own + 8 * r;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const int o = to[r];
    if (o < 0) continue;
    const long long place = (long long)o * COUT + channel;
    u32 value[NB];
    if (residual) load_words(value, (const u32*)(residual + place));
#pragma unroll
    for (int i = 0; i < NB; i++) {
      float low = sum[4 * i + 2 * r] + (i & 1 ? add[i / 2].z : add[i / 2].x);
      float high = sum[4 * i + 2 * r + 1] + (i & 1 ? add[i / 2].w : add[i / 2].y);
      if (residual) { low += low_half(value[i]); high += high_half(value[i]); }
      if (relu) { low = fmaxf(low, 0.f); high = fmaxf(high, 0.f); }
      PACK_F32(value[i], high, low);
    }
    if (NB == 2) *(uint2*)(out + place) = make_uint2(value[0], value[1]);
    else
#pragma unroll
      for (int i = 0; i < NB; i += 4)
        *(uint4*)(out + place + 2 * i) = make_uint4(value[i], value[(i + 1) % NB], value[(i + 2) % NB], value[(i + 3) % NB]);
  }
#pragma unroll
  for (int i = 0; i < TILE / 2; i++) sum[i] = 0.f;
}

// Packed weights are [column of TILE][step][product][8 columns][8 inner elements][column][2 elements].
__device__ __forceinline__ Word word_of(int i) {
  const int word = i % FRAGMENT, rest = i / FRAGMENT, row = word >> 2 & 7, eight = word >> 6;
  const int s = rest % KS, step = rest / KS % STEPS, column = rest / (KS * STEPS);
  return {step, s, word & 3, word >> 5 & 1, column * TILE + (row >> 1) * (TILE / 4) + 2 * eight + (row & 1)};
}
