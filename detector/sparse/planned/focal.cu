// A focal convolution's choice: which voxels matter, and which neighbours they add.
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
//   RUN          offsets of an entry of the level's table (`runs.cuh`)
//   NZ, NY, NX   the kernel of the strided convolution that follows

#include "../../ops/device.cuh"
#include "../../ops/half.cuh"
#include "../../ops/occupancy/bits.cuh"
#include "../../ops/occupancy/sight.cuh"

#define OFFSETS (KZ * KY * KX)
#define CENTRE (OFFSETS / 2)
#define OWN (OFFSETS - 1)
#define FULL 0xffffffffu
#define ROWS_OF_WARP 8

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

// ---------------------------------------------------------------------------------------------
// The foreground of top-k, in two kernels: keys and how many of them begin with each byte; then,
// a block a frame, the last key that is in and its last row.

extern "C" __global__ void __launch_bounds__(256) list_keys(
    const u16* logits, const int4* coordinates, const int* count, int capacity, u16* keys, u32* counts) {
  __shared__ u32 mine[256];
  int n = min(*count, capacity), first = blockIdx.x * 256, row = first + threadIdx.x;
  if (first >= n) return;
  mine[threadIdx.x] = 0;
  __syncthreads();
  int frame = coordinates[first].x;
  if (row < n) {
    int key = key_of(logits[(long long)row * PITCH + OWN]), its_frame = coordinates[row].x;
    keys[row] = (u16)key;
    if (its_frame == frame) atomicAdd(&mine[key >> 8], 1u);
    else atomicAdd(&counts[its_frame * 256 + (key >> 8)], 1u);
  }
  __syncthreads();
  if (mine[threadIdx.x]) atomicAdd(&counts[frame * 256 + threadIdx.x], mine[threadIdx.x]);
}

#define CUT_THREADS 1024

// Sum over the threads up to this one.
__device__ int sum_up_to(int value, int* parts) {
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  for (int o = 1; o < 32; o <<= 1) {
    int other = __shfl_up_sync(FULL, value, o);
    if (lane >= o) value += other;
  }
  __syncthreads();  // `parts` may still be read
  if (lane == 31) parts[warp] = value;
  __syncthreads();
  return value + __reduce_add_sync(FULL, lane < warp ? parts[lane] : 0);
}

struct Place { int at, left; };

// In which of 256 counts, from the last, the `wanted`-th lies, and which one in it it is.
__device__ Place find_from_top(const u32* counts, int wanted, int* parts, Place* place) {
  int n = threadIdx.x < 256 ? (int)counts[255 - threadIdx.x] : 0;
  int up_to = sum_up_to(n, parts);
  if (up_to >= wanted && up_to - n < wanted) *place = Place{255 - (int)threadIdx.x, wanted - (up_to - n)};
  __syncthreads();
  return *place;
}

extern "C" __global__ void __launch_bounds__(CUT_THREADS) find_cuts(
    const u16* keys, const u32* counts, double share, Cut* cuts) {
  __shared__ int parts[CUT_THREADS / 32], totals[2];
  __shared__ u32 bins[256];
  __shared__ Place place[2];
  int frame = blockIdx.x, tid = threadIdx.x;
  int before = 0, own = 0;
  if (tid < 256) {
    for (int i = 0; i < frame; i++) before += counts[i * 256 + tid];
    own = counts[frame * 256 + tid];
    bins[tid] = 0;
  }
  before = sum_up_to(before, parts);
  own = sum_up_to(own, parts);
  if (tid == CUT_THREADS - 1) { totals[0] = before; totals[1] = own; }
  __syncthreads();
  const int start = totals[0], end = start + totals[1], wanted = (int)((double)totals[1] * share);
  if (wanted <= 0) {
    if (tid == 0) cuts[frame] = Cut{0x10000, 0};
    return;
  }
  Place high = find_from_top(counts + frame * 256, wanted, parts, &place[0]);

  const uint4* eights = (const uint4*)keys;
  const int first = start >> 3, groups = ((end + 7) >> 3) - first;
  for (int i = tid; i < groups; i += CUT_THREADS) {
    uint4 v = eights[first + i];
    u32 words[4] = {v.x, v.y, v.z, v.w};
    for (int e = 0; e < 8; e++) {
      int row = (first + i) * 8 + e, key = words[e >> 1] >> (16 * (e & 1)) & 0xffff;
      if (row >= start && row < end && key >> 8 == high.at) atomicAdd(&bins[key & 255], 1u);
    }
  }
  __syncthreads();
  Place low = find_from_top(bins, high.left, parts, &place[1]);
  const int last = high.at << 8 | low.at;

  // A thread takes adjacent rows, so that the count up to it is a count up to a row.
  const int each = (groups + CUT_THREADS - 1) / CUT_THREADS;
  const int from = min(tid * each, groups), to = min(from + each, groups);
  int equal = 0;
  for (int i = from; i < to; i++) {
    uint4 v = eights[first + i];
    u32 words[4] = {v.x, v.y, v.z, v.w};
    for (int e = 0; e < 8; e++) {
      int row = (first + i) * 8 + e, key = words[e >> 1] >> (16 * (e & 1)) & 0xffff;
      equal += row >= start && row < end && key == last;
    }
  }
  int up_to = sum_up_to(equal, parts);
  if (up_to >= low.left && up_to - equal < low.left) {
    int left = low.left - (up_to - equal), row = max(start, (first + from) * 8) - 1;
    while (left) left -= keys[++row] == last;
    cuts[frame] = Cut{last, row + 1};
  }
}

// ---------------------------------------------------------------------------------------------

// A warp's 8 rows; each of its first 8 lanes knows of one whether it is foreground.
struct Eight { int first; bool important; int4 cell; Cut cut; u16 own; };

__device__ __forceinline__ Eight eight_rows(
    const u16* logits, const int4* coordinates, int n, const Cut* cuts, float threshold) {
  Eight e;
  int lane = threadIdx.x & 31;
  e.first = (blockIdx.x * blockDim.x + threadIdx.x) / 32 * ROWS_OF_WARP;
  e.important = false;
  int row = e.first + lane;
  if (lane < ROWS_OF_WARP && row < n) {
    e.cell = coordinates[row];
    e.own = logits[(long long)row * PITCH + OWN];
    e.cut = TOP_K ? cuts[e.cell.x] : Cut{0, 0};
    e.important = in_foreground(e.own, row, e.cut, threshold);
  }
  return e;
}

// A strided convolution of NZ x NY x NX after these voxels, and the grid that it makes.
struct Below {
  u32* words;
  u8* lines;
  int Z, Y, X, W, sz, sy, sx, pz, py, px;
};

// Marks the cells below whose windows hold a voxel; most of them are marked already, for old ones.
__device__ __forceinline__ void mark_seeing(const Below& l, int b, int z, int y, int x) {
  Grid g{l.Z, l.Y, l.X, l.W};
#pragma unroll
  for (int k = 0; k < NZ * NY * NX; k++) {
    const int z0 = z + l.pz - k / (NY * NX), y0 = y + l.py - k / NX % NY, x0 = x + l.px - k % NX;
    if (z0 < 0 || z0 % l.sz || y0 < 0 || y0 % l.sy || x0 < 0 || x0 % l.sx) continue;
    const int to_z = z0 / l.sz, to_y = y0 / l.sy, to_x = x0 / l.sx;
    if (to_z >= l.Z || to_y >= l.Y || to_x >= l.X) continue;
    const long long word = (long long)line_of(g, b, to_z, to_y) * l.W + (to_x >> 5);
    const u32 bit = 1u << (to_x & 31);
    if (!(l.words[word] & bit)) set_bits(l.words, l.lines, word, bit);
  }
}

// Marks the neighbours that foreground voxels chose and that are not there yet in `added`, of the
// same grid, and lists its words that hold any; below, marks the cells that see them. A lane takes
// an offset.
// added_totals: [voxels, words that hold any], 0 before.
extern "C" __global__ void mark_chosen(
    const u16* logits, const int4* coordinates, const int* count, int capacity, const Cut* cuts, float threshold,
    const u32* old, u32* added, u8* added_lines, int* listed, int listed_capacity, int* added_totals,
    int Z, int Y, int X, int W, u32* below, u8* below_lines, int below_z, int below_y, int below_x, int below_w,
    int sz, int sy, int sx, int pz, int py, int px) {
  int n = min(*count, capacity), lane = threadIdx.x & 31;
  Eight e = eight_rows(logits, coordinates, n, cuts, threshold);
  Grid g{Z, Y, X, W};
  const Below seeing{below, below_lines, below_z, below_y, below_x, below_w, sz, sy, sx, pz, py, px};
  for (u32 left = __ballot_sync(FULL, e.important); left; left &= left - 1) {
    int from = __ffs(left) - 1;
    int b = __shfl_sync(FULL, e.cell.x, from), z0 = __shfl_sync(FULL, e.cell.y, from);
    int y0 = __shfl_sync(FULL, e.cell.z, from), x0 = __shfl_sync(FULL, e.cell.w, from);
    const u16* its = logits + (long long)(e.first + from) * PITCH;
#pragma unroll
    for (int i = 0; i < OFFSETS; i += 32) {
      int k = i + lane;
      int z = z0 + k / (KY * KX) - KZ / 2, y = y0 + k / KX % KY - KY / 2, x = x0 + k % KX - KX / 2;
      bool first_of_word = false;
      long long word = 0;
      if (k < OFFSETS && k != CENTRE && sigmoid(logit_of(its, k)) >= threshold && z >= 0 && z < Z && y >= 0 &&
          y < Y && x >= 0 && x < X) {
        word = (long long)line_of(g, b, z, y) * W + (x >> 5);
        u32 bit = 1u << (x & 31);
        if (!((old[word] | added[word]) & bit)) {
          const u32 before = atomicOr(&added[word], bit);
          first_of_word = !before;
          if (!(before & bit)) mark_seeing(seeing, b, z, y, x);
        }
      }
      u32 firsts = __ballot_sync(FULL, first_of_word);
      if (!firsts) continue;
      int place = 0;
      if (lane == 0) place = atomicAdd(&added_totals[1], __popc(firsts));
      place = __shfl_sync(FULL, place, 0) + __popc(firsts & ((1u << lane) - 1));
      if (!first_of_word) continue;
      added_lines[word / LINE] = 1;
      if (place < listed_capacity) listed[place] = (int)word;
    }
  }
}

// Numbers the added voxels and lists their cells: a thread takes a word, and words come in any
// order, which no sum over a voxel's neighbours depends on.
extern "C" __global__ void number_added(
    const u32* added, int* rank, const int* listed, int listed_capacity, int* added_totals, int4* coordinates,
    int capacity, int Z, int Y, int W) {
  int i = blockIdx.x * blockDim.x + threadIdx.x, words = added_totals[1];
  // Words that were not listed hold a voxel each at least: enough to be over the capacity.
  if (i == 0 && words > listed_capacity) atomicAdd(&added_totals[0], words - listed_capacity);
  if (i >= min(words, listed_capacity)) return;
  int word = listed[i], line = word / W, plane = line / Y;
  u32 bits = added[word];
  int row = atomicAdd(&added_totals[0], __popc(bits));
  rank[word] = row;
  for (; bits; bits &= bits - 1, row++)
    if (row < capacity) coordinates[row] = make_int4(plane / Z, plane % Z, line % Y, word % W * 32 + __ffs(bits) - 1);
}

// The table of the strided convolution: as `fill_scanned` of tables.cu, but of old voxels, rows
// from 0, and of added ones, rows from `base`. NX is at most 32.
extern "C" __global__ void __launch_bounds__(128) fill_grown(
    const u32* site_words, const int* site_rank, const int* listed, int listed_capacity, const int* tile_words,
    const int* totals, int site_z, int site_y, int site_w, int4* coordinates, int capacity, const u32* old,
    const int* old_rank, int most_old, const u32* added, const int* added_rank, int most_added, int base, int Z, int Y,
    int X, int W, int sz, int sy, int sx, int pz, int py, int px, int* table, int pitch, u32* masks, int mask_words) {
  const int o = blockIdx.x * blockDim.x + threadIdx.x;
  const int place = o < capacity ? tile_words[o >> 5] : 0;
  const int n = min(totals[0], capacity);
  if ((o & ~31) >= n) return;
  const Scanned scanned{site_words, site_rank, listed, listed_capacity, tile_words, totals, site_z, site_y, site_w};
  const int4 c = scanned_cell(scanned, o, n, place);
  if (o < n) coordinates[o] = c;
  const Lookup of_old{old, old_rank, Z, Y, X, W, sz, sy, sx, pz, py, px, 1, 1, 1, most_old};
  const Lookup of_added{added, added_rank, Z, Y, X, W, sz, sy, sx, pz, py, px, 1, 1, 1, most_added};
  Sight<NZ, NY, NX> was;
  Sight<NZ, NY, NX, false> came;
  was.look(c, o < n, of_old);
  came.look(c, o < n, of_added);
  auto row_of = [&](int k) {
    const int row = was.row(k, of_old), more = came.row(k, of_added);
    return more >= 0 ? more + base : row;
  };
  write_column<NZ * NY * NX, 1>(row_of, o, o < n, table, pitch, masks, mask_words);
}

// Multiplies features, in place: with `by_neighbours`, a foreground voxel's by the mean of 1 and
// the probabilities with which other foreground voxels chose it; with `by_own`, all by their
// voxel's own probability. `table` is the level's submanifold map of the kernel; `columns` of a
// row are a multiple of 8. A warp takes 8 rows.
extern "C" __global__ void __launch_bounds__(256) gate(
    const u16* logits, const int4* coordinates, const int* count, int capacity, const Cut* cuts, float threshold,
    const int* table, int pitch, int by_neighbours, int by_own, u16* features, int columns) {
  int n = min(*count, capacity), lane = threadIdx.x & 31;
  Eight e = eight_rows(logits, coordinates, n, cuts, threshold);
  float factor = 1.f;  // of this lane's row
  u32 left = __ballot_sync(FULL, by_neighbours && e.important);
  for (; left; left &= left - 1) {
    int from = __ffs(left) - 1, row = e.first + from;
    Cut cut{__shfl_sync(FULL, e.cut.key, from), __shfl_sync(FULL, e.cut.row, from)};
    float total = 0.f;
    int received = 0;
#pragma unroll
    for (int i = 0; i < OFFSETS; i += 32) {
      int k = i + lane, other = -1;
      if (k < OFFSETS && k != CENTRE) other = Entry<RUN>::row(table[(long long)(k / RUN) * pitch + row], k % RUN);
      if (other < 0) continue;
      // It lies at offset k from here, so we lie at the opposite offset from it.
      const u16* its = logits + (long long)other * PITCH;
      float probability = sigmoid(logit_of(its, OFFSETS - 1 - k));
      if (!(probability >= threshold) || !in_foreground(its[OWN], other, cut, threshold)) continue;
      total += probability;
      received++;
    }
    for (int o = 16; o; o >>= 1) total += __shfl_xor_sync(FULL, total, o);
    received = __reduce_add_sync(FULL, received);
    if (lane == from) factor = (1.f + total) / (1.f + received);
  }
  if (by_own && lane < ROWS_OF_WARP && e.first + lane < n) factor *= sigmoid(e.own);
  const int eights = columns / 8, all = ROWS_OF_WARP * eights;
  for (int i = lane; i - lane < all; i += 32) {
    int row = min(i / eights, ROWS_OF_WARP - 1);
    float times = __shfl_sync(FULL, factor, row);
    if (i >= all || e.first + row >= n || times == 1.f) continue;
    uint4* place = (uint4*)(features + (long long)e.first * columns) + i;
    uint4 v = *place;
    u32* words = (u32*)&v;
#pragma unroll
    for (int j = 0; j < 4; j++) PACK_F32(words[j], high_half(words[j]) * times, low_half(words[j]) * times);
    *place = v;
  }
}
