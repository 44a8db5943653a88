// How both kinds of sparse convolution on tensor cores divide their work into steps.

#include "../device.cuh"
#include "../half.cuh"

#define CHUNK (CIN > 64 ? 64 : CIN)           // channels taken in one step
#define HALVES (CIN / CHUNK)
#define PACK (CIN < 16 ? 16 / CIN : 1)        // offsets taken in one step
#define KS (CHUNK < 16 ? 1 : CHUNK / 16)      // inner products a step
#define GROUPS ((OFFSETS + PACK - 1) / PACK)
#define STEPS (GROUPS * HALVES)
#define MASK_WORDS ((OFFSETS + 31) / 32)

// The offset whose rows this thread takes at a step; OFFSETS or more where there is none, as at step -1.
__device__ __forceinline__ int own_offset(int step) {
  int k = step < 0 ? OFFSETS : step / HALVES * PACK;
  if (PACK == 4) k += threadIdx.x & 3;
  if (PACK == 2) k += (threadIdx.x & 3) >> 1;
  return k;
}

// Where a thread's bytes of a row begin.
__device__ __forceinline__ const char* own_bytes_of(const u16* features) {
  const int t = threadIdx.x & 3;
  return (const char*)features + (PACK == 4 ? 0 : PACK == 2 ? (t & 1) * 8 : t * (CHUNK == 16 ? 8 : 16));
}

// The same in all lanes, and the compiler sees that it is: it would else take loops and shuffles that depend on it for
// divergent, and wait for all that was asked for at each.
template <class T> __device__ __forceinline__ T uniform(T same) { return (T)__reduce_or_sync(~0u, (u32)same); }

// The next offset of a mask, as the first step of its group; `step` stays -1 where none is left.
__device__ __forceinline__ void pop_step(u32 (&left)[MASK_WORDS], int& step) {
  step = -1;
#pragma unroll
  for (int i = 0; i < MASK_WORDS; i++)
    if (left[i] && step < 0) {
      int k = 32 * i + __ffs(left[i]) - 1;
      step = k / PACK * HALVES;
      if (PACK == 1) left[i] &= left[i] - 1;
      else left[i] &= ~(((1u << PACK) - 1) << (k / PACK * PACK & 31));
    }
}

// What a word of packed weights holds: one output channel's, for some of the input channels that thread t of four takes
// at a step's s-th product - the first or, as `pair` says, the second ones. Where they lie in a row is for `own_bytes_of`
// to say, and for `pack`.
struct Word { int step, s, t, pair, channel_out; };

// Weights as they are given: (OFFSETS, source, target), float32 or 16 bit.
//   turned    (OFFSETS, target, source)
//   flipped   offset k takes those of OFFSETS - 1 - k
//   scale     may be null: a factor of each output channel
struct Given {
  const void* weights;
  int is_float32, turned, flipped;
  const float* scale;
  int source, target;
  // Zero past their channels.
  __device__ __forceinline__ float at(int k, int channel, int channel_out) const {
    if (k >= OFFSETS || channel >= source || channel_out >= target) return 0.f;
    const int from = flipped ? OFFSETS - 1 - k : k;
    const long long place = turned ? ((long long)from * target + channel_out) * source + channel
                                   : ((long long)from * source + channel) * target + channel_out;
    float value;
    if (is_float32) value = ((const float*)weights)[place];
    else value = low_half(((const u16*)weights)[place]);
    return scale ? value * scale[channel_out] : value;
  }
};
