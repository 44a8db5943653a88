// Sparse convolution by `mma`: the pieces of `conv.cu`, which describes them and the macros.

#include "steps.cuh"

#if TF32
typedef float Out;
#else
typedef u16 Out;
#endif
#define MB (TILE / 16)                        // products that cover the output channels
#define FRAGMENT 128                          // u32 of one 16 x 16 piece of weights
#define STEP_WORDS (MB * KS * FRAGMENT)

__device__ __forceinline__ void mma(float (&d)[4], const uint4 a, u32 b0, u32 b1) {
#if TF32
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
#else
  asm("mma.sync.aligned.m16n8k16.row.col.f32." HALF "." HALF ".f32 "
#endif
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}

// Bytes of a row; zeros where `row` is negative. Written out: the compiler would load into other registers and
// copy, for which it waits.
__device__ __forceinline__ void fetch16(u32* v, const char* features, int row, int offset) {
  asm volatile(
      "{.reg .pred p; setp.ge.s32 p, %4, 0; mov.u32 %0, 0; mov.u32 %1, 0; mov.u32 %2, 0; mov.u32 %3, 0; "
      "@p ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%5];}"
      : "=&r"(v[0]), "=&r"(v[1]), "=&r"(v[2]), "=&r"(v[3])
      : "r"(row), "l"(features + (long long)row * (CIN * 2) + offset));
}
__device__ __forceinline__ void fetch8(u32* v, const char* features, int row) {
  asm volatile(
      "{.reg .pred p; setp.ge.s32 p, %2, 0; mov.u32 %0, 0; mov.u32 %1, 0; @p ld.global.nc.v2.u32 {%0, %1}, [%3];}"
      : "=&r"(v[0]), "=&r"(v[1])
      : "r"(row), "l"(features + (long long)row * (CIN * 2)));
}

#define ROWS_HELD (PACK == 1 ? (NB + 3) / 4 : NB)
// One a lane of each 32; for less than 16 channels, of this thread's column in each eight.
struct Rows { int at[ROWS_HELD]; };

// Which rows the tile's voxels see at a step; none at step -1.
__device__ __forceinline__ void load_rows(Rows& rows, const int* table, int pitch, int first, int count, int step) {
  const int lane = threadIdx.x & 31, k = own_offset(step), o = first + (PACK == 1 ? lane : lane >> 2);
  const int end = PACK == 1 && NB < 4 ? min(count, first + 8 * NB) : count, last = k < OFFSETS ? end : 0;
  const int apart = PACK == 1 ? 32 : 8;
  const int* from = table + (long long)k * pitch + o;
#pragma unroll
  for (int j = 0; j < ROWS_HELD; j++) rows.at[j] = o + apart * j < last ? from[apart * j] : -1;
}
// Of this thread's column in the j-th eight.
__device__ __forceinline__ int row_of(const Rows& rows, int j) {
  if (PACK > 1) return rows.at[j % ROWS_HELD];
  return __shfl_sync(~0u, rows.at[j / 4 % ROWS_HELD], j % 4 * 8 + ((threadIdx.x & 31) >> 2));
}

struct Inputs { u32 v[NB][KS * 2]; };  // of one step

// `features` points to this thread's bytes of row 0.
__device__ __forceinline__ void gather(Inputs& in, const Rows& rows, const char* features, int step) {
  const int half = HALVES > 1 ? step & (HALVES - 1) : 0;
#pragma unroll
  for (int j = 0; j < NB; j++) {
    const int row = row_of(rows, j);
    if (CHUNK <= 16) fetch8(in.v[j], features, row);
    else
#pragma unroll
      for (int i = 0; i < KS / 2; i++) fetch16(in.v[j] + 4 * i, features, row, half * CHUNK * 2 + i * 64);
  }
}

__device__ __forceinline__ void multiply(float (&sum)[MB][NB][4], const Inputs& in, const u32* weights) {
  int lane = threadIdx.x & 31;
  const uint4* w = (const uint4*)weights + lane;
#pragma unroll
  for (int s = 0; s < KS; s++)
#pragma unroll
    for (int m = 0; m < MB; m++) {
      uint4 a = w[(m * KS + s) * 32];
#pragma unroll
      for (int j = 0; j < NB; j++) mma(sum[m][j], a, in.v[j][2 * s], in.v[j][2 * s + 1]);
    }
}

// Walks over the steps at which a tile sees anything.
struct Walk {
  u32 left[MASK_WORDS];
  int step;
  __device__ __forceinline__ void start(const u32* masks, int first, int count) {
    step = -1;
#pragma unroll
    for (int i = 0; i < MASK_WORDS; i++) {
      left[i] = 0;
#pragma unroll
      for (int j = 0; j < (NB + 3) / 4; j++)
        if (first + 32 * j < count) left[i] |= masks[((first >> 5) + j) * MASK_WORDS + i];
      left[i] = uniform(left[i]);
    }
  }
  // Of every `share` groups of offsets keeps the `own`-th.
  __device__ __forceinline__ void keep(int own, int share) {
#pragma unroll
    for (int i = 0; i < MASK_WORDS; i++) {
      u32 kept = 0;
#pragma unroll
      for (int b = 0; b < 32; b++) kept |= (u32)((32 * i + b) / PACK % share == own) << b;
      left[i] &= kept;
    }
  }
  __device__ __forceinline__ int count() const {  // of steps
    int groups = 0;
#pragma unroll
    for (int i = 0; i < MASK_WORDS; i++) {
      u32 starts = left[i];
#pragma unroll
      for (int by = 1; by < PACK; by *= 2) starts |= starts >> by;
      groups += __popc(PACK == 4 ? starts & 0x11111111u : PACK == 2 ? starts & 0x55555555u : starts);
    }
    return groups * HALVES;
  }
  __device__ __forceinline__ int next() {  // -1 after the last
    if (HALVES > 1 && step >= 0 && (step + 1) % HALVES) return ++step;
    pop_step(left, step);
    return step;
  }
};

// The rows that a tile's columns stand for, one a lane in each 32; -1 past the last. Asked for early on.
struct Places {
  int at[(NB + 3) / 4];
  __device__ __forceinline__ void ask(const int* order, int first, int count) {
#pragma unroll
    for (int i = 0; i < (NB + 3) / 4; i++) {
      const int o = first + 32 * i + (threadIdx.x & 31);
      at[i] = o >= count ? -1 : order ? __ldg(order + o) : o;
    }
  }
  __device__ __forceinline__ void prefetch(const Out* from) const {
#pragma unroll
    for (int i = 0; i < (NB + 3) / 4; i++)
      if (at[i] >= 0 && (NB >= 4 || (threadIdx.x & 31) < 8 * NB))
        asm volatile("prefetch.global.L2 [%0];" ::"l"(from + (long long)at[i] * COUT));
  }
  // Of this thread's voxel e in the j-th eight.
  __device__ __forceinline__ int of(int j, int e) const {
    return __shfl_sync(~0u, at[j / 4], j % 4 * 8 + (threadIdx.x & 3) * 2 + e);
  }
};

#define WORDS (TF32 ? 2 * MB : MB)
struct Channels { u32 v[WORDS]; };  // of a thread, of one voxel, as they are in memory

__device__ __forceinline__ Channels load(const Out* from) {
  Channels c;
#pragma unroll
  for (int i = 0; i < WORDS; i += 4)
    if (WORDS >= 4) {
      const uint4 x = ((const uint4*)from)[i / 4];
      c.v[i] = x.x; c.v[(i + 1) % WORDS] = x.y; c.v[(i + 2) % WORDS] = x.z; c.v[(i + 3) % WORDS] = x.w;
    } else if (WORDS == 2) {
      const uint2 x = *(const uint2*)from;
      c.v[0] = x.x; c.v[1 % WORDS] = x.y;
    } else c.v[0] = *(const u32*)from;
  return c;
}
__device__ __forceinline__ void store(const Channels& c, Out* to) {
#pragma unroll
  for (int i = 0; i < WORDS; i += 4)
    if (WORDS >= 4)
      ((uint4*)to)[i / 4] = make_uint4(c.v[i], c.v[(i + 1) % WORDS], c.v[(i + 2) % WORDS], c.v[(i + 3) % WORDS]);
    else if (WORDS == 2) *(uint2*)to = make_uint2(c.v[0], c.v[1 % WORDS]);
    else *(u32*)to = c.v[0];
}
__device__ __forceinline__ float channel(const Channels& c, int i) {
#if TF32
  return __uint_as_float(c.v[i]);
#else
  return i & 1 ? high_half(c.v[i / 2]) : low_half(c.v[i / 2]);
#endif
}

// A warp's rows. All that is added is asked for before any of it is waited for.
//   eights   a bit for each eight of rows that is to be written
#define ALL_EIGHTS ~0u
__device__ __forceinline__ void write(
    const float (&sum)[MB][NB][4], const Places& places, const float* bias, const Out* residual, int relu, Out* out,
    int column, u32 eights) {
  const int channels = column * TILE + (threadIdx.x >> 2 & 7) * 2 * MB;
  float offset[2 * MB];
  Channels summand[NB][2] = {};
#pragma unroll
  for (int i = 0; i < MB; i++) {
    const float2 both = bias ? __ldg((const float2*)(bias + channels) + i) : make_float2(0.f, 0.f);
    offset[2 * i] = both.x;
    offset[2 * i + 1] = both.y;
  }
#pragma unroll
  for (int i = 0; i < 2 * NB; i++) {
    const int o = places.of(i / 2, i & 1);
    if (residual && o >= 0 && eights >> i / 2 & 1)
      summand[i / 2][i & 1] = load(residual + (long long)o * COUT + channels);
  }
#pragma unroll
  for (int i = 0; i < 2 * NB; i++) {
    const int j = i / 2, e = i & 1, o = places.of(j, e);
    if (!(eights >> j & 1)) continue;
    float value[2 * MB];
#pragma unroll
    for (int c = 0; c < 2 * MB; c++) {
      value[c] = sum[c / 2][j][e + 2 * (c & 1)] + offset[c] + channel(summand[j][e], c);
      if (relu) value[c] = fmaxf(value[c], 0.f);
    }
    Channels made;
#if TF32
#pragma unroll
    for (int c = 0; c < 2 * MB; c++) made.v[c] = __float_as_uint(value[c]);
#else
#pragma unroll
    for (int m = 0; m < MB; m++) PACK_F32(made.v[m], value[2 * m + 1], value[2 * m]);
#endif
    if (o >= 0) store(made, out + (long long)o * COUT + channels);
  }
}

// Packed weights are [column of TILE][step][m][s][lane][register][2].
__device__ __forceinline__ Word word_of(int i) {
  const int reg = i & 3, lane = i >> 2 & 31, rest = i >> 7;
  const int s = rest % KS, m = rest / KS % MB, step = rest / (KS * MB) % STEPS, column = rest / (KS * MB * STEPS);
  return {step, s, lane & 3, reg >> 1, column * TILE + (lane >> 2) * 2 * MB + 2 * m + (reg & 1)};
}
