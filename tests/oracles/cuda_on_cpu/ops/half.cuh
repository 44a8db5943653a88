// In place of `detector/ops/half.cuh`: float16 alone.
inline float of_half(u16 h) {
  _Float16 f;
  memcpy(&f, &h, 2);
  return (float)f;
}
inline u16 as_half(float v) {
  const _Float16 f = (_Float16)v;
  u16 h;
  memcpy(&h, &f, 2);
  return h;
}
inline float low_half(u32 v) { return of_half(v & 0xffff); }
inline float high_half(u32 v) { return of_half(v >> 16); }
#define PACK_F32(d, hi, lo) d = (u32)as_half(hi) << 16 | as_half(lo)
