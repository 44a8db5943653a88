// The bitmap index on a GPU. One bit a cell in 32-bit words along x: cell (b, z, y, x) is bit
// x % 32 of word ((b * Z + z) * Y + y) * W + x / 32, W = ceil(X / 32). rank[word] is the row of the
// word's first set bit, and means nothing where the word is 0.
//
// Counts stay on the GPU: `count` points to the number of rows that hold anything; launches may
// cover more. Where a capacity is given, rows beyond it are not written; the count says how many
// there are.

typedef unsigned int u32;
typedef unsigned long long u64;

struct Grid { int z, y, x, words; };  // cells along each axis, words a line

__device__ __forceinline__ int line_of(Grid g, int b, int z, int y) { return (b * g.z + z) * g.y + y; }

#ifndef KZ  // what follows serves any kernel

// Sets the bits of coordinates inside the grid; rows with b < 0 don't count. `outside` (may be
// null) becomes 1 where another row lies outside the grid or the batch, and `unsorted` where a row
// does not come after the one before it.
extern "C" __global__ void mark(
    const int4* coordinates, const int* count, int capacity, u32* words, int batch,
    int Z, int Y, int X, int W, int* outside, int* unsorted) {
  int n = count ? min(*count, capacity) : capacity;
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  int4 c = coordinates[i];
  if (c.x < 0) { if (outside) *outside = 1; return; }
  if (c.x >= batch || c.y < 0 || c.y >= Z || c.z < 0 || c.z >= Y || c.w < 0 || c.w >= X) {
    if (outside) *outside = 1;
    return;
  }
  Grid g{Z, Y, X, W};
  atomicOr(&words[(long long)line_of(g, c.x, c.y, c.z) * W + (c.w >> 5)], 1u << (c.w & 31));
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

__device__ __forceinline__ void set_window(u32* line, Window w, int X, int W) {
  while (w.start < 0 && w.bits) {
    int drop = min(-w.start, 32);
    w.bits >>= drop;
    w.start += drop;
  }
  for (int at = w.start >> 5, skip = w.start & 31; w.bits && at < W; at++, skip = 0) {
    u32 part = (u32)(w.bits << skip);
    w.bits >>= 32 - skip;
    if (at == W - 1 && (X & 31)) part &= (1u << (X & 31)) - 1;
    if (part) atomicOr(&line[at], part);
  }
}

// Sets the bits of cells of a strided convolution's output whose window holds a voxel of the finer
// grid; a thread takes one of its words that hold any, as `scan` lists them.
extern "C" __global__ void mark_windows(
    const u32* finer, const int* listed, const int* listed_count, int capacity, int finer_z, int finer_y,
    int finer_words, u32* words, int Z, int Y, int X, int W,
    int kz, int ky, int kx, int sz, int sy, int sx, int pz, int py, int px, int dz, int dy, int dx) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= min(*listed_count, capacity)) return;
  int from = listed[i], line = from / finer_words, plane = line / finer_y;
  int in_y = line % finer_y, in_z = plane % finer_z, frame = plane / finer_z;
  const u32 bits = finer[from];
  Grid g{Z, Y, X, W};
  for (int a = 0; a < kz; a++) {
    int z = in_z + pz - a * dz;
    if (z < 0 || z % sz || z / sz >= Z) continue;
    for (int b = 0; b < ky; b++) {
      int y = in_y + py - b * dy;
      if (y < 0 || y % sy || y / sy >= Y) continue;
      u32* to = words + (long long)line_of(g, frame, z / sz, y / sy) * W;
      Window all{0, 0};
      for (int d = kx - 1; d >= 0; d--) {  // rising starts
        Window w = window_of(bits, from % finer_words, sx, px, d * dx);
        int up = w.start - all.start;
        if (!all.bits) all = w;
        else if (up < 32) all.bits |= w.bits << up;
        else { set_window(to, all, X, W); all = w; }
      }
      set_window(to, all, X, W);
    }
  }
}

// Sets the bits of chosen neighbours: bit k of a row's words in `chosen` stands for offset k.
extern "C" __global__ void mark_neighbours(
    const int4* coordinates, const int* count, int capacity, const unsigned char* chosen, u32* words,
    int Z, int Y, int X, int W, int kz, int ky, int kx) {
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
        u32* word = words + (long long)line_of(g, c.x, z, y) * W + (x >> 5);
        u32 bit = 1u << (x & 31);
        if (!(*word & bit)) atomicOr(word, bit);
      }
}

// ---------------------------------------------------------------------------------------------
// Ranks, the number of set bits, and a list of the words that hold any, in one pass over the words.
// Blocks take tickets and look back at the sums of the blocks before them (Merrill and Garland,
// "Single-pass Parallel Prefix Scan with Decoupled Look-back", 2016). `state` is 1 + blocks 64-bit
// words, zero at the start: the ticket, then each block's sums, marked PARTIAL or TOTAL.

#define SCAN_THREADS 256
#define SCAN_QUADS 4  // of words a thread
#define PARTIAL (1ull << 62)
#define TOTAL (2ull << 62)
#define NONZERO 31    // sums: bits in the lower 31, words that hold any above
#define SUMS ((1ull << 62) - 1)

__device__ __forceinline__ u64 load_state(const u64* p) {
  u64 v;
  asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(v) : "l"(p) : "memory");
  return v;
}
__device__ __forceinline__ void store_state(u64* p, u64 v) {
  asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(p), "l"(v) : "memory");
}

// Sums before this block's words. All threads look, each at another block.
__device__ u64 sum_before(u64* state, int block, u64 own) {
  __shared__ u64 parts[SCAN_THREADS / 32];
  __shared__ bool ends[SCAN_THREADS / 32];
  int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5;
  if (tid == 0) store_state(&state[block], (block ? PARTIAL : TOTAL) | own);
  if (block == 0) return 0;
  u64 before = 0;
  for (int last = block - 1; last >= 0; last -= SCAN_THREADS) {
    int at = last - tid;
    u64 v = TOTAL;
    if (at >= 0) do { v = load_state(&state[at]); } while (v == 0);
    // Each warp adds up to its nearest total; the first warp that has one ends the search.
    u32 totals = __ballot_sync(~0u, v >= TOTAL);
    u64 part = lane <= (totals ? __ffs(totals) - 1 : 31) ? v & SUMS : 0;
    for (int o = 16; o; o >>= 1) part += __shfl_xor_sync(~0u, part, o);
    if (lane == 0) { parts[warp] = part; ends[warp] = totals != 0; }
    __syncthreads();
    bool end = false;
    for (int i = 0; i < SCAN_THREADS / 32 && !end; i++) { before += parts[i]; end = ends[i]; }
    __syncthreads();
    if (end) break;
  }
  if (tid == 0) store_state(&state[block], TOTAL | (before + own));
  return before;
}

// totals: [set bits, words that hold any].
extern "C" __global__ void __launch_bounds__(SCAN_THREADS, 6) scan(
    const uint4* words, int quads, u64* state, int* rank, int* listed, int listed_capacity, int* totals) {
  __shared__ int block;
  __shared__ u64 base;
  __shared__ u32 sums[SCAN_QUADS][SCAN_THREADS / 32], all;
  const int SPLIT = 18;  // within a block: bits in the lower 18, words above
  int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5;
  if (tid == 0) block = (int)atomicAdd((u32*)state, 1u);
  __syncthreads();
  const int first = block * SCAN_THREADS * SCAN_QUADS + tid;
  uint4 v[SCAN_QUADS];
  u32 count[SCAN_QUADS], inclusive[SCAN_QUADS];
#pragma unroll
  for (int j = 0; j < SCAN_QUADS; j++) {
    int i = first + j * SCAN_THREADS;
    v[j] = i < quads ? words[i] : make_uint4(0, 0, 0, 0);
  }
#pragma unroll
  for (int j = 0; j < SCAN_QUADS; j++) {
    count[j] = (__popc(v[j].x) + __popc(v[j].y) + __popc(v[j].z) + __popc(v[j].w)) |
               ((v[j].x != 0) + (v[j].y != 0) + (v[j].z != 0) + (v[j].w != 0)) << SPLIT;
    u32 s = count[j];
    for (int o = 1; o < 32; o <<= 1) {
      u32 t = __shfl_up_sync(~0u, s, o);
      if (lane >= o) s += t;
    }
    inclusive[j] = s;
    if (lane == 31) sums[j][warp] = s;
  }
  __syncthreads();
  if (warp == 0) {
    // 32 sums in the order of the words: quad group, then warp.
    u32 s = sums[lane >> 3][lane & 7], inc = s;
    for (int o = 1; o < 32; o <<= 1) {
      u32 t = __shfl_up_sync(~0u, inc, o);
      if (lane >= o) inc += t;
    }
    sums[lane >> 3][lane & 7] = inc - s;
    if (lane == 31) all = inc;
  }
  __syncthreads();
  const u64 own = (all & ((1u << SPLIT) - 1)) | (u64)(all >> SPLIT) << NONZERO;
  u64 before = sum_before(state + 1, block, own);
  if (tid == 0) {
    base = before;
    if (block == gridDim.x - 1) {
      totals[0] = (int)((before + own) & 0x7fffffff);
      totals[1] = (int)((before + own) >> NONZERO);
    }
  }
  if (!all) return;
  __syncthreads();
  const int rows_before = (int)(base & 0x7fffffff), words_before = (int)(base >> NONZERO);
#pragma unroll
  for (int j = 0; j < SCAN_QUADS; j++) {
    if (!count[j]) continue;
    u32 ahead = sums[j][warp] + inclusive[j] - count[j];
    int row = rows_before + (ahead & ((1u << SPLIT) - 1)), place = words_before + (ahead >> SPLIT);
    u32 q[4] = {v[j].x, v[j].y, v[j].z, v[j].w};
#pragma unroll
    for (int k = 0; k < 4; k++) {
      if (!q[k]) continue;
      int word = (first + j * SCAN_THREADS) * 4 + k;
      rank[word] = row;
      if (place < listed_capacity) listed[place] = word;
      row += __popc(q[k]);
      place++;
    }
  }
}

// Coordinates in order, from what `scan` left; a thread takes one word that holds any.
extern "C" __global__ void emit(
    const u32* words, const int* rank, const int* listed, const int* listed_count, int listed_capacity,
    int4* coordinates, int capacity, int Z, int Y, int W) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= min(*listed_count, listed_capacity)) return;
  int word = listed[i], row = rank[word];
  int x = word % W * 32, line = word / W;
  int y = line % Y, plane = line / Y;
  int z = plane % Z, b = plane / Z;
  for (u32 m = words[word]; m; m &= m - 1, row++)
    if (row < capacity) coordinates[row] = make_int4(b, z, y, x + __ffs(m) - 1);
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

#endif

// table[k * pitch + o] = row of cell `site * stride - padding + offset * dilation`, or -1.
// masks[o / 32 * mask_words + k / 32], bit k % 32: does any site of the 32 see something through
// offset k? Rows from `most_rows` on count as absent. One thread a site; rows of x are read by one or two words for all their offsets.
// KZ, KY, KX are set where a kernel's size is known and (KX - 1) * dx <= 32: all words are then
// asked for at once.
#ifdef KZ
extern "C" __global__ void fill_table(
    const int4* sites, const int* count, int capacity, const u32* words, const int* rank,
    int Z, int Y, int X, int W,
    int, int, int, int sz, int sy, int sx, int pz, int py, int px, int dz, int dy, int dx,
    int most_rows, int* table, int pitch, u32* masks, int mask_words) {
  int n = min(*count, capacity);
  int o = blockIdx.x * blockDim.x + threadIdx.x;
  if ((o & ~31) >= n) return;
  bool alive = o < n;
  int4 c = alive ? sites[o] : make_int4(0, 0, 0, 0);
  Grid g{Z, Y, X, W};
  int z0 = c.y * sz - pz, y0 = c.z * sy - py, x0 = c.w * sx - px;
  int word = min(max(x0, 0), X - 1) >> 5, other = min(max(x0 + (KX - 1) * dx, 0), X - 1) >> 5;
  u32 bits[KZ * KY], more[KZ * KY];
  int ahead[KZ * KY], ahead_more[KZ * KY];
#pragma unroll
  for (int i = 0; i < KZ * KY; i++) {
    int z = z0 + i / KY * dz, y = y0 + i % KY * dy;
    bool ok = alive && z >= 0 && z < Z && y >= 0 && y < Y;
    const u32* line = words + (long long)line_of(g, c.x, z, y) * W;
    bits[i] = ok ? line[word] : 0;
    more[i] = ok && other != word ? line[other] : 0;
  }
#pragma unroll
  for (int i = 0; i < KZ * KY; i++) {
    const int* line = rank + (long long)line_of(g, c.x, z0 + i / KY * dz, y0 + i % KY * dy) * W;
    ahead[i] = bits[i] ? line[word] : 0;
    ahead_more[i] = more[i] ? line[other] : 0;
  }
  u32 mask = 0;
#pragma unroll
  for (int k = 0; k < KZ * KY * KX; k++) {
    const int i = k / KX;
    int x = x0 + k % KX * dx, row = -1;
    if (x >= 0 && x < X) {
      bool near = x >> 5 == word;
      u32 b = near ? bits[i] : more[i], bit = 1u << (x & 31);
      if (b & bit) row = (near ? ahead[i] : ahead_more[i]) + __popc(b & (bit - 1));
    }
    if (row >= most_rows) row = -1;
    if (alive) table[(long long)k * pitch + o] = row;
    if (__any_sync(~0u, row >= 0)) mask |= 1u << (k & 31);
    if ((k & 31) == 31 || k == KZ * KY * KX - 1) {
      if ((o & 31) == 0) masks[(o >> 5) * mask_words + (k >> 5)] = mask;
      mask = 0;
    }
  }
}
#else
extern "C" __global__ void fill_table(
    const int4* sites, const int* count, int capacity, const u32* words, const int* rank,
    int Z, int Y, int X, int W,
    int kz, int ky, int kx, int sz, int sy, int sx, int pz, int py, int px, int dz, int dy, int dx,
    int most_rows, int* table, int pitch, u32* masks, int mask_words) {
  int n = min(*count, capacity);
  int o = blockIdx.x * blockDim.x + threadIdx.x;
  if ((o & ~31) >= n) return;
  bool alive = o < n;
  int4 c = alive ? sites[o] : make_int4(0, 0, 0, 0);
  Grid g{Z, Y, X, W};
  int z0 = c.y * sz - pz, y0 = c.z * sy - py, x0 = c.w * sx - px;
  u32 mask = 0;
  int k = 0;
  for (int a = 0; a < kz; a++) {
    int z = z0 + a * dz;
#pragma unroll 3
    for (int b = 0; b < ky; b++) {
      int y = y0 + b * dy;
      bool ok = alive && z >= 0 && z < Z && y >= 0 && y < Y;
      long long line = (long long)line_of(g, c.x, z, y) * W;
      int word = -1, ahead = 0;
      u32 bits = 0;
#pragma unroll 3
      for (int d = 0; d < kx; d++, k++) {
        int x = x0 + d * dx, row = -1;
        if (ok && x >= 0 && x < X) {
          if ((x >> 5) != word) {
            word = x >> 5;
            bits = words[line + word];
            if (bits) ahead = rank[line + word];
          }
          u32 bit = 1u << (x & 31);
          if (bits & bit) row = ahead + __popc(bits & (bit - 1));
        }
        if (row >= most_rows) row = -1;
        if (alive) table[(long long)k * pitch + o] = row;
        if (__any_sync(~0u, row >= 0)) mask |= 1u << (k & 31);
        if ((k & 31) == 31) {
          if ((o & 31) == 0) masks[(o >> 5) * mask_words + (k >> 5)] = mask;
          mask = 0;
        }
      }
    }
  }
  if ((k & 31) && (o & 31) == 0) masks[(o >> 5) * mask_words + (k >> 5)] = mask;
}

// out[k * pitch_out + table[k * pitch + o]] = o; `out` holds -1 before.
extern "C" __global__ void transpose_table(
    const int* table, int pitch, int columns, int* out, int pitch_out) {
  int o = blockIdx.x * blockDim.x + threadIdx.x;
  if (o >= columns) return;
  int row = table[(long long)blockIdx.y * pitch + o];
  if (row >= 0) out[(long long)blockIdx.y * pitch_out + row] = o;
}

// The masks of a table that came without.
extern "C" __global__ void mask_table(
    const int* table, int pitch, int columns, int offsets, u32* masks, int mask_words) {
  int o = blockIdx.x * blockDim.x + threadIdx.x;
  if ((o & ~31) >= columns) return;
  for (int first = 0; first < offsets; first += 32) {
    u32 mask = 0;
    for (int k = first; k < min(offsets, first + 32); k++) {
      int row = o < columns ? table[(long long)k * pitch + o] : -1;
      if (__any_sync(~0u, row >= 0)) mask |= 1u << (k - first);
    }
    if ((o & 31) == 0) masks[(o >> 5) * mask_words + (first >> 5)] = mask;
  }
}

// Clears the words that hold these cells: cheaper than clearing a whole grid.
extern "C" __global__ void unmark(
    const int4* coordinates, const int* count, int capacity, u32* words, int Z, int Y, int W) {
  int n = min(*count, capacity);
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  int4 c = coordinates[i];
  words[(long long)((c.x * Z + c.y) * Y + c.z) * W + (c.w >> 5)] = 0;
}
#endif
