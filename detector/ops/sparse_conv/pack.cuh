// How weights come into the order of the convolutions by `mma`. After `mma.cuh`.

// Weights (OFFSETS, CIN, COUT), float32 or 16 bit, to
// [column of TILE][step][m][s][lane][register][2].
//   turned    the given weights are (OFFSETS, COUT, CIN)
//   flipped   offset k takes the given weights' OFFSETS - 1 - k
//   scale     may be null: a factor of each output channel
//   source    input channels that the given weights have; the others up to CIN are zero
//   target    output channels that they have; the others up to COUT are zero
extern "C" __global__ void pack(
    const void* given, int is_float32, int turned, int flipped, const float* scale, int source, int target,
    u32* packed) {
  may_follow();
  const int total = COUT / TILE * STEPS * STEP_WORDS;
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= total) {  // the counters of `convolve`
    if (i < total + 2 * (COUT / TILE)) packed[i] = 0;
    return;
  }
  int reg = i & 3, lane = i >> 2 & 31, rest = i >> 7;
  int s = rest % KS, m = rest / KS % MB, step = rest / (KS * MB) % STEPS, column = rest / (KS * MB * STEPS);
  int g = lane >> 2, t = lane & 3, group = step / HALVES, half = step % HALVES;
  int channel_out = column * TILE + g * 2 * MB + 2 * m + (reg & 1);
  const Given weights{given, is_float32, turned, flipped, scale, source, target};
  float value[2] = {};
#if TF32
  const int words = 1, width = 2;  // numbers of a register, 16-bit words of a number
#else
  const int words = 2, width = 1;
#endif
  for (int e = 0; e < words; e++) {
    const int within = words * (reg >> 1) + e;
    int k = group, channel;
    if (PACK == 4) { k = group * 4 + t; channel = within; }
    else if (PACK == 2) { k = group * 2 + (t >> 1); channel = 4 / width * (t & 1) + within; }
    else if (CHUNK == 16) channel = 4 / width * t + within;
    else channel = (half * CHUNK + 32 * (s >> 1) + 8 * t + 4 * (s & 1)) / width + within;
    value[e] = weights.at(k, channel, channel_out);
  }
#if TF32
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(packed[i]) : "f"(value[0]));
#else
  u32 both;
  PACK_F32(both, value[1], value[0]);
  packed[i] = both;
#endif
}
