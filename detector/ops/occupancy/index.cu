// The bitmap index on a GPU. One bit a cell in 32-bit words along x: cell (b, z, y, x) is bit
// x % 32 of word ((b * Z + z) * Y + y) * W + x / 32, W = ceil(X / 32). rank[word] is the row of the
// word's first set bit, and means nothing where the word is 0.
//
// A grid is mostly empty: lines[l] is 1 where line l holds any bit, where a line is 32 words, 128 bytes; 32
// lines are a span. Whoever sets bits sets the line's byte too; who walks over the grid reads those first.
//
// Counts stay on the GPU: `count` points to the number of rows that hold anything; launches may
// cover more. Where a capacity is given, rows beyond it are not written; the count says how many
// there are.

#include "../device.cuh"
#include "bits.cuh"

// Sets the bits of coordinates inside the grid; rows with b < 0 don't count. `outside` (may be
// null) becomes 1 where another row lies outside the grid or the batch, and `unsorted` where a row
// does not come after the one before it.
extern "C" __global__ void mark(
    const int4* coordinates, const int* count, int capacity, u32* words, u8* lines, int batch,
    int Z, int Y, int X, int W, int* outside, int* unsorted) {
  may_follow();
  const int n = count ? min(*count, capacity) : capacity;
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  const int4 c = i < n ? coordinates[i] : make_int4(-1, 0, 0, 0);
  const bool inside =
      c.x >= 0 && c.x < batch && c.y >= 0 && c.y < Z && c.z >= 0 && c.z < Y && c.w >= 0 && c.w < X;
  if (i < n && !inside && outside) *outside = 1;
  const Grid g{Z, Y, X, W};
  const int word = inside ? line_of(g, c.x, c.y, c.z) * W + (c.w >> 5) : -1;
  // Neighbours in one word set their bits together.
  u32 bits = 1u << (c.w & 31);
  const int lane = threadIdx.x & 31, before = __shfl_up_sync(~0u, word, 1);
#pragma unroll
  for (int by = 1; by < 32; by *= 2) {
    const int its = __shfl_down_sync(~0u, word, by);
    const u32 more = __shfl_down_sync(~0u, bits, by);
    if (lane + by < 32 && its == word) bits |= more;
  }
  if (!inside) return;
  if (lane == 0 || before != word) set_bits(words, lines, word, bits);
  if (unsorted && i > 0) {
    int4 p = coordinates[i - 1];
    bool after = c.x != p.x ? c.x > p.x : c.y != p.y ? c.y > p.y : c.z != p.z ? c.z > p.z : c.w > p.w;
    if (!after) *unsorted = 1;
  }
}

// Cells o of a line of outputs whose window holds one of 32 cells of the finer line, those of `bits`
// from cell 32 * word on, for offset d * dx. Strides 1 and 2, by far the most used, take no loop.
struct Window { u64 bits; int start; };  // bit i stands for output start + i
__device__ __forceinline__ Window window_of(u32 bits, int word, int sx, int px, int shift) {
  // An input at x is seen by output (x + px - shift) / sx where that divides evenly.
  int first = 32 * word + px - shift;
  if (sx == 1) return {bits, first};
  if (sx == 2) {
    if (first & 1) { bits >>= 1; first++; }
    u32 v = bits & 0x55555555u;  // every other bit, moved together
    v = (v | v >> 1) & 0x33333333u;
    v = (v | v >> 2) & 0x0f0f0f0fu;
    v = (v | v >> 4) & 0x00ff00ffu;
    v = (v | v >> 8) & 0x0000ffffu;
    return {v, first >> 1};
  }
  u64 v = 0;
  int start = first >= 0 ? first / sx : -((-first + sx - 1) / sx);  // rounded down
  for (; bits; bits &= bits - 1) {
    int x = first + __ffs(bits) - 1 - start * sx;
    if (x % sx == 0) v |= 1ull << (x / sx);
  }
  return {v, start};
}

__device__ __forceinline__ void set_window(u32* words, u8* lines, long long line, Window w, int X, int W) {
  while (w.start < 0 && w.bits) {
    int drop = min(-w.start, 32);
    w.bits >>= drop;
    w.start += drop;
  }
  for (int at = w.start >> 5, skip = w.start & 31; w.bits && at < W; at++, skip = 0) {
    u32 part = (u32)(w.bits << skip);
    w.bits >>= 32 - skip;
    if (at == W - 1 && (X & 31)) part &= (1u << (X & 31)) - 1;
    if (part) set_bits(words, lines, line + at, part);
  }
}

// Sets the bits of cells of a strided convolution's output whose window holds a voxel of the finer
// grid; a thread takes one layer of the kernel for one of its words that hold any, as `scan` lists them.
// Where the macros KZ to DX are set, they are the convolution's numbers, and divisions cost little.
extern "C" __global__ void mark_windows(
    const u32* finer, const int* listed, const int* listed_count, int capacity, int finer_z, int finer_y,
    int finer_words, u32* words, u8* lines, int Z, int Y, int X, int W, int given_kz, int given_ky, int given_kx,
    int given_sz, int given_sy, int given_sx, int pz, int py, int px, int given_dz, int given_dy, int given_dx) {
#ifdef KZ
  const int kz = KZ, ky = KY, kx = KX, sz = SZ, sy = SY, sx = SX, dz = DZ, dy = DY, dx = DX;
#else
  const int kz = given_kz, ky = given_ky, kx = given_kx, sz = given_sz, sy = given_sy, sx = given_sx;
  const int dz = given_dz, dy = given_dy, dx = given_dx;
#endif
  const int i = (blockIdx.x * blockDim.x + threadIdx.x) / kz, layer = blockIdx.x * blockDim.x + threadIdx.x - i * kz;
  if (i >= min(*listed_count, capacity)) return;
  const int from = listed[i], line = from / finer_words, plane = line / finer_y, frame = plane / finer_z;
  const int in_y = line - plane * finer_y, in_z = plane - frame * finer_z, word = from - line * finer_words;
  const u32 bits = finer[from];
  const int z = in_z + pz - layer * dz;
  if (z < 0 || z % sz || z / sz >= Z) return;
  Grid g{Z, Y, X, W};
#pragma unroll
  for (int b = 0; b < ky; b++) {
    const int y = in_y + py - b * dy;
    if (y < 0 || y % sy || y / sy >= Y) continue;
    const long long to = (long long)line_of(g, frame, z / sz, y / sy) * W;
    Window all{0, 0};
#pragma unroll
    for (int d = kx - 1; d >= 0; d--) {  // rising starts
      const Window w = window_of(bits, word, sx, px, d * dx);
      const int up = w.start - all.start;
      if (!all.bits) all = w;
      else if (up < 32) all.bits |= w.bits << up;
      else { set_window(words, lines, to, all, X, W); all = w; }
    }
    set_window(words, lines, to, all, X, W);
  }
}

// Sets the bits of chosen neighbours: bit k of a row's words in `chosen` stands for offset k.
extern "C" __global__ void mark_neighbours(
    const int4* coordinates, const int* count, int capacity, const unsigned char* chosen, u32* words,
    u8* lines, int Z, int Y, int X, int W, int kz, int ky, int kx) {
  int n = count ? min(*count, capacity) : capacity;
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  int4 c = coordinates[i];
  Grid g{Z, Y, X, W};
  const unsigned char* mine = chosen + (long long)i * kz * ky * kx;
  for (int a = 0; a < kz; a++)
    for (int b = 0; b < ky; b++)
      for (int d = 0; d < kx; d++) {
        if (!mine[(a * ky + b) * kx + d]) continue;
        int z = c.y + a - kz / 2, y = c.z + b - ky / 2, x = c.w + d - kx / 2;
        if (z < 0 || z >= Z || y < 0 || y >= Y || x < 0 || x >= X) continue;
        const long long word = (long long)line_of(g, c.x, z, y) * W + (x >> 5);
        const u32 bit = 1u << (x & 31);
        if (!(words[word] & bit)) set_bits(words, lines, word, bit);
      }
}

// ---------------------------------------------------------------------------------------------
// Ranks, the number of set bits and a list of the words that hold any, in one pass over the lines that hold
// some. A block takes some spans; a warp's words are all asked for at once. Blocks look back at the sums of
// the blocks before them (Merrill and Garland, "Single-pass Parallel Prefix Scan with Decoupled Look-back",
// 2016), which are under way already. `state` holds each block's sums, marked PARTIAL or TOTAL, zero at the
// start.

#define SCAN_WARPS 8
#define SCAN_SPANS 4  // of a block
#define HELD (SCAN_SPANS * 32 / SCAN_WARPS)  // lines of a warp, a multiple of 4
#define LOOK 4        // blocks that a thread looks at in one turn
#define PARTIAL (1ull << 62)
#define TOTAL (2ull << 62)
#define NONZERO 31    // sums: bits in the lower 31, words that hold any above
#define SUMS ((1ull << 62) - 1)

// Sums before this block's words.
__device__ u64 sum_before(const u64* state, int block) {
  __shared__ u64 parts[SCAN_WARPS];
  __shared__ u32 nearest[SCAN_WARPS];
  const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5;
  u64 before = 0;
  for (int last = block - 1; last >= 0; last -= SCAN_WARPS * 32 * LOOK) {
    u64 v[LOOK];
    u32 near = ~0u;  // how far the nearest total is
#pragma unroll
    for (int i = 0; i < LOOK; i++) {
      const int at = last - i * SCAN_WARPS * 32 - tid;
      v[i] = at >= 0 ? load_relaxed(&state[at]) : TOTAL;
    }
#pragma unroll
    for (int i = LOOK - 1; i >= 0; i--) {
      const int at = last - i * SCAN_WARPS * 32 - tid;
      while (v[i] == 0) v[i] = load_relaxed(&state[at]);
      if (v[i] >= TOTAL) near = i * SCAN_WARPS * 32 + tid;
    }
    near = __reduce_min_sync(~0u, near);
    if (lane == 0) nearest[warp] = near;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < SCAN_WARPS; i++) near = min(near, nearest[i]);
    u64 part = 0;
#pragma unroll
    for (int i = 0; i < LOOK; i++)
      if (i * SCAN_WARPS * 32 + tid <= near) part += v[i] & SUMS;
    for (int o = 16; o; o >>= 1) part += __shfl_xor_sync(~0u, part, o);
    if (lane == 0) parts[warp] = part;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < SCAN_WARPS; i++) before += parts[i];
    if (near != ~0u) break;
    __syncthreads();
  }
  return before;
}

// Where cells of a word are.
struct Place { int b, z, y, x; };
__device__ __forceinline__ Place place_of(int word, int Z, int Y, int W) {
  const int line = word / W, plane = line / Y, b = plane / Z;
  return {b, plane - b * Z, line - plane * Y, (word - line * W) * 32};
}

// totals: [set bits, words that hold any]. tile_words[t]: where in the list the word of row 32 * t is.
extern "C" __global__ void __launch_bounds__(SCAN_WARPS * 32, 4) scan(
    const u32* words, const u8* lines, int spans, u64* state, int* rank, int* listed, int listed_capacity,
    int* tile_words, int tiles, int* totals) {
  __shared__ u64 sums[SCAN_WARPS];
  const int SPLIT = 16;  // within a warp: bits in the lower 16, words above
  const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5, block = blockIdx.x;
  const int span = block * SCAN_SPANS + warp * HELD / 32, line = warp * HELD % 32;
  await_earlier();
  const bool holds = span < spans && lane < HELD && lines[span * (SPAN / LINE) + line + lane];
  const u32 held_lines = __ballot_sync(~0u, holds);
  // Four lines at a time, four words a lane.
  const int first = span * SPAN + line * LINE + lane * 4;
  uint4 held[HELD / 4];
  u32 own_sum[HELD / 4], sum = 0;
#pragma unroll
  for (int i = 0; i < HELD / 4; i++) {
    const bool any = held_lines >> (4 * i + lane / 8) & 1;
    held[i] = any ? *(const uint4*)(words + first + i * 4 * LINE) : uint4{0, 0, 0, 0};
  }
#pragma unroll
  for (int i = 0; i < HELD / 4; i++) {
    const uint4 w = held[i];
    own_sum[i] = (__popc(w.x) + __popc(w.y) + __popc(w.z) + __popc(w.w)) |
                 ((w.x != 0) + (w.y != 0) + (w.z != 0) + (w.w != 0)) << SPLIT;
    sum += own_sum[i];
  }
  sum = __reduce_add_sync(~0u, sum);
  if (lane == 0) sums[warp] = (sum & ((1u << SPLIT) - 1)) | (u64)(sum >> SPLIT) << NONZERO;
  __syncthreads();
  u64 own = 0, ahead = 0;
#pragma unroll
  for (int i = 0; i < SCAN_WARPS; i++) {
    if (i == warp) ahead = own;
    own += sums[i];
  }
  const bool last = block == gridDim.x - 1;
  if (tid == 0) store_relaxed(&state[block], (block ? PARTIAL : TOTAL) | own);
  if (own == 0 && !last) return;
  u32 up_to[HELD / 4];  // sums over the lanes up to this one, while the others' are on their way
#pragma unroll
  for (int i = 0; i < HELD / 4; i++) up_to[i] = own_sum[i];
#pragma unroll
  for (int o = 1; o < 32; o <<= 1)
#pragma unroll
    for (int i = 0; i < HELD / 4; i++) {
      const u32 t = __shfl_up_sync(~0u, up_to[i], o);
      if (lane >= o) up_to[i] += t;
    }
  const u64 before = sum_before(state, block);
  may_follow();  // not before: who waits would take the room of blocks that are still to come
  if (tid == 0 && block) store_relaxed(&state[block], TOTAL | (before + own));
  if (tid == 0 && last) {
    totals[0] = (int)((before + own) & 0x7fffffff);
    totals[1] = (int)((before + own) >> NONZERO);
  }
  if (!held_lines) return;
  ahead += before;
  int place = (int)(ahead >> NONZERO), total = (int)(ahead & 0x7fffffff);
#pragma unroll
  for (int i = 0; i < HELD / 4; i++) {
    const u32 all = __shfl_sync(~0u, up_to[i], 31), ahead_of = up_to[i] - own_sum[i];
    const int at = first + i * 4 * LINE;
    const u32 word[4] = {held[i].x, held[i].y, held[i].z, held[i].w};
    int row = total + (int)(ahead_of & ((1u << SPLIT) - 1)), own_place = place + (int)(ahead_of >> SPLIT);
    if (own_sum[i]) {
      int rows[4];
#pragma unroll
      for (int w = 0; w < 4; w++) {
        rows[w] = row;
        const int bits = __popc(word[w]), tile = (row + 31) >> 5;  // the first that begins in this word, if any does
        if (word[w]) {
          if (own_place < listed_capacity) listed[own_place] = at + w;
          if (tile * 32 < row + bits && tile < tiles) tile_words[tile] = own_place;
          own_place++;
        }
        row += bits;
      }
      *(int4*)(rank + at) = make_int4(rows[0], rows[1], rows[2], rows[3]);
    }
    total += (int)(all & ((1u << SPLIT) - 1));
    place += (int)(all >> SPLIT);
  }
}

// Bits, lines and states of scans to zero again, of what they name alone; a warp takes a span.
extern "C" __global__ void clear(u32* words, u8* lines, int spans, u64* state, int states) {
  int i = blockIdx.x * blockDim.x + threadIdx.x, lane = i & 31;
  for (int s = i; s < states; s += gridDim.x * blockDim.x) state[s] = 0;
  if (i >> 5 >= spans) return;
  const bool holds = lines[i];  // a span's lines are as many as a warp's lanes
  if (holds) lines[i] = 0;
  for (u32 left = __ballot_sync(~0u, holds); left; left &= left - 1)
    words[((long long)(i - lane) + __ffs(left) - 1) * LINE + lane] = 0;
}

// Coordinates in order, from what `scan` left; a thread takes one word that holds any.
extern "C" __global__ void emit(
    const u32* words, const int* rank, const int* listed, const int* listed_count, int listed_capacity,
    int4* coordinates, int capacity, int Z, int Y, int W) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= min(*listed_count, listed_capacity)) return;
  const int word = listed[i];
  const Place p = place_of(word, Z, Y, W);
  int row = rank[word];
  for (u32 bits = words[word]; bits; bits &= bits - 1, row++)
    if (row < capacity) coordinates[row] = make_int4(p.b, p.z, p.y, p.x + __ffs(bits) - 1);
}

__device__ __forceinline__ int look(const u32* words, const int* rank, long long word, int x) {
  u32 v = words[word], bit = 1u << (x & 31);
  return v & bit ? rank[word] + __popc(v & (bit - 1)) : -1;
}

// Row of each cell, -1 where it is empty or outside.
extern "C" __global__ void find_rows(
    const int4* coordinates, const int* count, int capacity, const u32* words, const int* rank, int batch,
    int Z, int Y, int X, int W, int* rows) {
  int n = count ? min(*count, capacity) : capacity;
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  int4 c = coordinates[i];
  Grid g{Z, Y, X, W};
  bool inside = c.x >= 0 && c.x < batch && c.y >= 0 && c.y < Z && c.z >= 0 && c.z < Y && c.w >= 0 && c.w < X;
  rows[i] = inside ? look(words, rank, (long long)line_of(g, c.x, c.y, c.z) * W + (c.w >> 5), c.w) : -1;
}

