// The bits of a number as a 16-bit float, rounded to nearest.

__device__ __forceinline__ u16 float16_bits(float value) {
  u16 bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}
__device__ __forceinline__ u16 bfloat16_bits(float value) {
  u32 both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %1;" : "=r"(both) : "f"(value));
  return both & 0xffff;
}
