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

// Bytes of a row; zeros where `row` is negative.
__device__ __forceinline__ void fetch16(u32* v, const char* features, int row, int offset) {
  uint4 x = make_uint4(0, 0, 0, 0);
  if (row >= 0) x = __ldg((const uint4*)(features + (long long)row * (CIN * 2) + offset));
  v[0] = x.x; v[1] = x.y; v[2] = x.z; v[3] = x.w;
}
__device__ __forceinline__ void fetch8(u32* v, const char* features, int row) {
  uint2 x = make_uint2(0, 0);
  if (row >= 0) x = __ldg((const uint2*)(features + (long long)row * (CIN * 2)));
  v[0] = x.x; v[1] = x.y;
}

struct Rows { int at[NB]; };  // of this thread's column in each eight

// Which rows the tile's voxels see at a step; none at step -1.
__device__ __forceinline__ void load_rows(Rows& rows, const int* table, int pitch, int first, int count, int step) {
  int lane = threadIdx.x & 31, k = step < 0 ? OFFSETS : step / HALVES * PACK;
  if (PACK == 4) k += lane & 3;
  if (PACK == 2) k += (lane & 3) >> 1;
  int last = k < OFFSETS ? count : 0, o = first + (lane >> 2);
  const int* from = table + (long long)k * pitch + o;
#pragma unroll
  for (int j = 0; j < NB; j++) rows.at[j] = o + 8 * j < last ? from[8 * j] : -1;
}

struct Inputs { u32 v[NB][KS * 2]; };  // of one step

// `features` points to this thread's bytes of row 0.
__device__ __forceinline__ void gather(Inputs& in, const Rows& rows, const char* features, int step) {
  const int half = HALVES > 1 ? step & (HALVES - 1) : 0;
#pragma unroll
  for (int j = 0; j < NB; j++)
    if (CHUNK <= 16) fetch8(in.v[j], features, rows.at[j]);
    else
#pragma unroll
      for (int i = 0; i < KS / 2; i++) fetch16(in.v[j] + 4 * i, features, rows.at[j], half * CHUNK * 2 + i * 64);
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
    }
  }
  __device__ __forceinline__ int next() {  // -1 after the last
    if (HALVES > 1 && step >= 0 && (step + 1) % HALVES) return ++step;
    pop_step(left, step);
    return step;
  }
};

// A thread's channels of its voxel e in the j-th eight.
__device__ __forceinline__ void write(
    const float (&sum)[MB][NB][4], const float (&offset)[2 * MB], int j, int e, const Out* residual, int relu,
    Out* out) {
  float value[2 * MB];
#pragma unroll
  for (int i = 0; i < 2 * MB; i++) value[i] = sum[i / 2][j][e + 2 * (i & 1)] + offset[i];
#if TF32
  if (residual)
#pragma unroll
    for (int m = 0; m < MB; m++) {
      const float2 r = ((const float2*)residual)[m];
      value[2 * m] += r.x;
      value[2 * m + 1] += r.y;
    }
#pragma unroll
  for (int i = 0; i < 2 * MB; i++) value[i] = relu ? fmaxf(value[i], 0.f) : value[i];
#pragma unroll
  for (int m = 0; m < MB; m++) ((float2*)out)[m] = make_float2(value[2 * m], value[2 * m + 1]);
#else
  u32 both[MB];
#pragma unroll
  for (int m = 0; m < MB; m++) {
    float low = value[2 * m], high = value[2 * m + 1];
    if (residual) {
      const u32 r = ((const u32*)residual)[m];
      low += low_half(r);
      high += high_half(r);
    }
    if (relu) { low = fmaxf(low, 0.f); high = fmaxf(high, 0.f); }
    PACK_F32(both[m], high, low);
  }
  if (MB == 4) *(uint4*)out = make_uint4(both[0], both[1 % MB], both[2 % MB], both[3 % MB]);
  else if (MB == 2) *(uint2*)out = make_uint2(both[0], both[1 % MB]);
  else
#pragma unroll
    for (int m = 0; m < MB; m++) ((u32*)out)[m] = both[m];
#endif
}

#if __CUDA_ARCH__ >= 900
__device__ __forceinline__ void wait_weights(u32 barrier) {
  asm volatile(
      "{.reg .pred p;\nAGAIN: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], 0;\n@!p bra AGAIN;}" ::"r"(barrier)
      : "memory");
}
#endif
