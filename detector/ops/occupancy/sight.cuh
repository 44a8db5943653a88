// What a convolution's sites see in a bitmap index, whose layout `index.cu` describes. After `bits.cuh`.

#include "runs.cuh"

// A bitmap and where a site's cells lie in it: site * stride - padding + offset * dilation.
struct Lookup {
  const u32* words;
  const int* rank;
  int Z, Y, X, W, sz, sy, sx, pz, py, px, dz, dy, dx;
  int most_rows;  // rows from here on count as absent
};

// What a site sees of a kernel of Kz x Ky x Kx, (Kx - 1) * dx <= 32: of each of its lines along x the cells, from
// the first offset's on, and the first cell's row. All words are asked for at once.
//   RUN_ON   rows are numbered along a line, so that one rank serves both of its words
template <int Kz, int Ky, int Kx, bool RUN_ON = true> struct Sight {
  u64 cells[Kz * Ky];
  int first[Kz * Ky], second[RUN_ON ? 1 : Kz * Ky], shift;
  __device__ __forceinline__ void look(int4 c, bool alive, const Lookup& l) {
    if (!alive) c = make_int4(0, 0, 0, 0);  // what lies there means nothing
    Grid g{l.Z, l.Y, l.X, l.W};
    const int z0 = c.y * l.sz - l.pz, y0 = c.z * l.sy - l.py, x0 = c.w * l.sx - l.px;
    // A line's cells lie in 64 bits, from bit `shift` on. Cells beyond the grid are never set.
    const int word = x0 >> 5;
    shift = x0 & 31;
    const bool low = alive && word >= 0 && word < l.W;
    const bool high = alive && word + 1 < l.W && shift + (Kx - 1) * l.dx >= 32;
    u32 bits[Kz * Ky], more[Kz * Ky];
#pragma unroll
    for (int i = 0; i < Kz * Ky; i++) {
      const int z = z0 + i / Ky * l.dz, y = y0 + i % Ky * l.dy;
      const bool inside = z >= 0 && z < l.Z && y >= 0 && y < l.Y;
      const long long at = (long long)line_of(g, c.x, z, y) * l.W + word;
      bits[i] = inside && low ? l.words[at] : 0;
      more[i] = inside && high ? l.words[at + 1] : 0;
    }
#pragma unroll
    for (int i = 0; i < Kz * Ky; i++) {
      const long long at = (long long)line_of(g, c.x, z0 + i / Ky * l.dz, y0 + i % Ky * l.dy) * l.W + word;
      if (RUN_ON) first[i] = bits[i] | more[i] ? l.rank[bits[i] ? at : at + 1] : 0;
      else {
        first[i] = bits[i] ? l.rank[at] : 0;
        second[RUN_ON ? 0 : i] = more[i] ? l.rank[at + 1] : 0;
      }
    }
#pragma unroll
    for (int i = 0; i < Kz * Ky; i++) {
      cells[i] = ((u64)more[i] << 32 | bits[i]) >> shift;
      first[i] += __popc(bits[i] & ((1u << shift) - 1));
    }
  }
  // The row seen through offset k, or -1.
  __device__ __forceinline__ int row(int k, const Lookup& l) const {
    const int i = k / Kx, bit = k % Kx * l.dx;
    const u64 before = cells[i] & ((1ull << bit) - 1);
    int found = first[i] + __popcll(before);
    if (!RUN_ON && shift + bit >= 32) found = second[RUN_ON ? 0 : i] + __popcll(before >> (32 - shift));
    return cells[i] >> bit & 1 && found < l.most_rows ? found : -1;
  }
  // Of the run of offsets along line i; dx is 1.
  __device__ __forceinline__ int entry(int i, const Lookup& l) const {
    u32 bits = (u32)cells[i] & ((1u << Kx) - 1);
    if (first[i] + __popc(bits) > l.most_rows)
      for (int d = Kx - 1; d >= 0 && first[i] + __popc(bits) > l.most_rows; d--) bits &= (1u << d) - 1;
    return bits ? (int)((u32)first[i] << Kx | bits) : 0;
  }
};

// table[i * pitch + o] = entry_of(i), of runs of N offsets, and the masks of each 32 sites; a warp's lanes come
// together.
template <int Runs, int N, class EntryOf>
__device__ __forceinline__ void write_column(
    EntryOf entry_of, int o, bool alive, int* table, int pitch, u32* masks, int mask_words) {
  const int words = (Runs * N + 31) / 32;
  u32 seen[words] = {};
  table += o;
#pragma unroll
  for (int i = 0; i < Runs; i++, table += pitch) {
    const int entry = entry_of(i), word = i * N / 32, shift = i * N % 32;
    const u32 bits = Entry<N>::seen(entry);
    if (alive) *table = entry;
    seen[word] |= bits << shift;
    if (shift + N > 32) seen[word + 1] |= bits >> (32 - shift);
  }
#pragma unroll
  for (int word = 0; word < words; word++) {
    const u32 all = __reduce_or_sync(~0u, seen[word]);
    if ((o & 31) == 0 && alive) masks[(o >> 5) * mask_words + word] = all;
  }
}

// The same where a warp's sites are the columns `o` that follow one another from anywhere in the tile `first` on:
// adds to the masks, for others have a part in its tiles.
template <int Runs, int N, class EntryOf>
__device__ __forceinline__ void add_to_column(
    EntryOf entry_of, int o, bool alive, int first, int* table, int pitch, u32* masks, int mask_words) {
  const int words = (Runs * N + 31) / 32;
  u32 seen[words] = {};
#pragma unroll
  for (int i = 0; i < Runs; i++) {
    const int entry = entry_of(i), word = i * N / 32, shift = i * N % 32;
    const u32 bits = Entry<N>::seen(entry);
    if (alive) table[(long long)i * pitch + o] = entry;
    seen[word] |= bits << shift;
    if (shift + N > 32) seen[word + 1] |= bits >> (32 - shift);
  }
#pragma unroll
  for (int word = 0; word < words; word++)
#pragma unroll
    for (int tile = first; tile < first + 2; tile++) {
      const u32 all = __reduce_or_sync(~0u, alive && o >> 5 == tile ? seen[word] : 0);
      if ((threadIdx.x & 31) == 0 && all) atomicOr(&masks[tile * mask_words + word], all);
    }
}

// A bitmap as `scan` left it, whose voxels are sites.
struct Scanned {
  const u32* words;
  const int *rank, *listed;
  int listed_capacity;
  const int *tile_words, *totals;
  int Z, Y, W;
};

// Place of the set bit before which there are n others.
__device__ __forceinline__ int place_of_bit(u32 bits, int n) {
  int place = 0;
#pragma unroll
  for (int width = 16; width; width /= 2) {
    const int below = __popc(bits >> place & ((1u << width) - 1));
    if (n >= below) { n -= below; place += width; }
  }
  return place;
}

// Cell of row o < n; a warp takes 32 rows in turn, which lie in as many words of the list at most. A lane looks at
// a word, then learns from another which one holds its own row.
//   place   of the word of the warp's first row
__device__ __forceinline__ int4 scanned_cell(const Scanned& s, int o, int n, int place) {
  const int lane = o & 31, tile = o & ~31;
  place = tile < n ? min(place + lane, min(s.totals[1], s.listed_capacity) - 1) : 0;
  const int word = s.listed[place];
  const u32 bits = s.words[word];
  const int row = s.rank[word], start = max(row - tile, 0);
  const u32 starts = __reduce_or_sync(~0u, start < 32 ? 1u << start : 0);
  const int from = max(__popc(starts & ((2u << lane) - 1)) - 1, 0);
  const int own_word = __shfl_sync(~0u, word, from), own_row = __shfl_sync(~0u, row, from);
  const u32 own_bits = __shfl_sync(~0u, bits, from);
  const int line = own_word / s.W, plane = line / s.Y, frame = plane / s.Z;
  return make_int4(
      frame, plane - frame * s.Z, line - plane * s.Y,
      (own_word - line * s.W) * 32 + place_of_bit(own_bits, o - own_row));
}
