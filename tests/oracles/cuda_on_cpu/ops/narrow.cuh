// In place of `detector/ops/narrow.cuh`: float16 alone.
inline u16 float16_bits(float value) {
  const _Float16 half = (_Float16)value;
  u16 bits;
  memcpy(&bits, &half, 2);
  return bits;
}
inline u16 bfloat16_bits(float) { return 0; }
