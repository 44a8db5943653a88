// How weights come into the order of a convolution, whose pieces have said before what a word of it holds (`word_of`).
// After `steps.cuh`.

#ifndef COUNTERS
#define COUNTERS 0  // words a column that come after the weights, zero at first
#endif

// Weights (OFFSETS, CIN, COUT), as `Given` describes them, to [column of TILE][word].
extern "C" __global__ void pack(
    const void* given, int is_float32, int turned, int flipped, const float* scale, int source, int target,
    u32* packed) {
  may_follow();
  const int total = COUT / TILE * STEPS * STEP_WORDS, i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= total) {
    if (i < total + COUNTERS * (COUT / TILE)) packed[i] = 0;
    return;
  }
  const Given weights{given, is_float32, turned, flipped, scale, source, target};
  const Word word = word_of(i);
  const int t = word.t, group = word.step / HALVES, half = word.step % HALVES;
  float value[2] = {};
#if TF32
  const int words = 1, width = 2;  // numbers of a register, 16-bit words of a number
#else
  const int words = 2, width = 1;
#endif
  for (int e = 0; e < words; e++) {
    const int within = words * word.pair + e;
    int k = group, channel;
    if (PACK == 4) { k = group * 4 + t; channel = within; }
    else if (PACK == 2) { k = group * 2 + (t >> 1); channel = 4 / width * (t & 1) + within; }
    else if (CHUNK == 16) channel = 4 / width * t + within;
    else channel = (half * CHUNK + 32 * (word.s >> 1) + 8 * t + 4 * (word.s & 1)) / width + within;
    value[e] = weights.at(k, channel, word.channel_out);
  }
#if TF32
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(packed[i]) : "f"(value[0]));
#else
  u32 both;
  PACK_F32(both, value[1], value[0]);
  packed[i] = both;
#endif
}
