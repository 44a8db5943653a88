// A table that is there, in another order: see `order.cuh`.

#include "../device.cuh"
#include "order.cuh"

// `out` gets the first `count` columns of the table.
extern "C" __global__ void __launch_bounds__(WINDOW) order_table(
    const int* table, int pitch, const int* count, int capacity, int* out, int out_pitch, u32* masks, int* order) {
  __shared__ Ordering shared;
  await_earlier();
  const int first = blockIdx.x * WINDOW, o = first + threadIdx.x, n = min(*count, capacity);
  if (first >= n) return;
  int rows[OFFSETS];
  u32 mask = 0;
#pragma unroll
  for (int k = 0; k < OFFSETS; k++) rows[k] = o < n ? table[(long long)k * pitch + o] : -1;
#pragma unroll
  for (int k = 0; k < OFFSETS; k++) mask |= (u32)(rows[k] >= 0) << k;
  write_in_order(shared, first, n, mask, [&](int k) { return rows[k]; }, out, out_pitch, masks, order);
}
