// A focal convolution's opinion of its voxels. After `half.cuh`.
//
// `logits` are rows of PITCH 16-bit numbers: of the OFFSETS - 1 neighbours, in the kernel's order
// without its centre, then the voxel's own. The important voxels are the foreground: those whose
// own probability exceeds the threshold or, with TOP_K, so many of each frame's best.
//
// Macros:
//   KZ, KY, KX   the kernel
//   PITCH        numbers of a row of logits
//   TOP_K        1: the foreground is what `cuts` say, 0: what exceeds the threshold
//   BF16         1: bfloat16, 0: float16

#define OFFSETS (KZ * KY * KX)
#define CENTRE (OFFSETS / 2)
#define OWN (OFFSETS - 1)
#define FULL 0xffffffffu

#if BF16
#define INFINITY_BITS 0x7f80
#else
#define INFINITY_BITS 0x7c00
#endif

__device__ __forceinline__ float to_float(u16 v) { return low_half(v); }

__device__ __forceinline__ float sigmoid(u16 v) { return 1.f / (1.f + expf(-to_float(v))); }

// Integers in the order of the numbers; zeros are equal, and NaN comes above all, as torch sorts.
__device__ __forceinline__ int key_of(u16 v) {
  int size = v & 0x7fff;
  if (size > INFINITY_BITS) return 0xffff;
  return v & 0x8000 && size ? 0x8000 - size : 0x8000 + size;
}

// Where a frame's foreground ends: keys above `key` are in it, and equal ones up to `row`.
struct Cut { int key, row; };

__device__ __forceinline__ bool in_foreground(u16 own, int row, Cut cut, float threshold) {
#if TOP_K
  int key = key_of(own);
  return key > cut.key || (key == cut.key && row < cut.row);
#else
  return sigmoid(own) > threshold;
#endif
}

// Offset k's logit, k not the centre.
__device__ __forceinline__ u16 logit_of(const u16* row, int k) { return row[k - (k > CENTRE)]; }
