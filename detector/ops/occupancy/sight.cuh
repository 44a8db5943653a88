// What a convolution's sites see in a bitmap index, whose layout `index.cu` describes. After `bits.cuh`.

// A bitmap and where a site's cells lie in it: site * stride - padding + offset * dilation.
struct Lookup {
  const u32* words;
  const int* rank;
  int Z, Y, X, W, sz, sy, sx, pz, py, px, dz, dy;
  int most_rows;  // rows from here on count as absent
};

// Bits of `cells` before bit `n`, a constant; for few, adding them is cheaper than counting.
__device__ __forceinline__ int count_before(u32 cells, int n) {
  return n == 0 ? 0 : n == 1 ? (int)(cells & 1) : n == 2 ? (int)((cells & 1) + (cells >> 1 & 1))
                                                         : __popc(cells & ((1u << n) - 1));
}

// What a site sees of a kernel of Kz x Ky x Kx, offsets Dx apart along x, (Kx - 1) * Dx < 32: of each of its lines
// along x the cells, from the first offset's on, and the first cell's row. All words are asked for at once.
//   RUN_ON   rows are numbered along a line, so that one rank serves both of its words
template <int Kz, int Ky, int Kx, int Dx = 1, bool RUN_ON = true> struct Sight {
  static constexpr int LINES = Kz * Ky, REACH = (Kx - 1) * Dx, MASKS = (LINES * Kx + 31) / 32;
  u32 cells[LINES];
  int first[LINES], second[RUN_ON ? 1 : LINES], shift;
  __device__ __forceinline__ void look(int4 c, bool alive, const Lookup& l) {
    const int z0 = c.y * l.sz - l.pz, y0 = c.z * l.sy - l.py, x0 = c.w * l.sx - l.px;
    // A line's cells lie in two words, from bit `shift` on. Cells beyond the grid are never set.
    const int word = x0 >> 5, start = ((c.x * l.Z + z0) * l.Y + y0) * l.W + word;
    shift = x0 & 31;
    const bool low = alive && (u32)word < (u32)l.W;
    const bool high = alive && (u32)(word + 1) < (u32)l.W && shift + REACH >= 32;
    u32 bits[LINES], more[LINES];
#pragma unroll
    for (int i = 0; i < LINES; i++) {
      const int z = i / Ky * l.dz, y = i % Ky * l.dy;
      const bool inside = (u32)(z0 + z) < (u32)l.Z && (u32)(y0 + y) < (u32)l.Y;
      const u32* from = l.words + (start + (z * l.Y + y) * l.W);
      bits[i] = more[i] = 0;
      if (inside && low) bits[i] = from[0];
      if (inside && high) more[i] = from[1];
    }
#pragma unroll
    for (int i = 0; i < LINES; i++) {
      const int at = start + (i / Ky * l.dz * l.Y + i % Ky * l.dy) * l.W;
      first[i] = 0;
      if (RUN_ON) {
        if (bits[i] | more[i]) first[i] = l.rank[at + (bits[i] == 0)];
      } else {
        int& its = second[RUN_ON ? 0 : i];
        its = 0;
        if (bits[i]) first[i] = l.rank[at];
        if (more[i]) its = l.rank[at + 1];
      }
    }
    int last = 0;
#pragma unroll
    for (int i = 0; i < LINES; i++) {
      cells[i] = __funnelshift_r(bits[i], more[i], shift);
      first[i] += __popc(bits[i] & ((1u << shift) - 1));
      last = max(last, RUN_ON ? first[i] : max(first[i], second[RUN_ON ? 0 : i]));
    }
    if (last >= l.most_rows - REACH)
#pragma unroll
      for (int i = 0; i < LINES; i++)
#pragma unroll
        for (int d = 0; d < Kx; d++)
          if (row(i * Kx + d) >= l.most_rows) cells[i] &= ~(1u << d * Dx);
  }
  // The row seen through offset k, or -1.
  __device__ __forceinline__ int row(int k) const {
    const int i = k / Kx, bit = k % Kx * Dx;
    int found = first[i] + count_before(cells[i], bit);
    if (!RUN_ON && shift + bit >= 32)
      found = second[RUN_ON ? 0 : i] + __popc((cells[i] & ((1u << bit) - 1)) >> (32 - shift & 31));
    return cells[i] >> bit & 1 ? found : -1;
  }
  // Adds the offsets through which anything is seen.
  __device__ __forceinline__ void add_to(u32 (&seen)[MASKS]) const {
#pragma unroll
    for (int i = 0; i < LINES; i++) {
      u32 line = cells[i] & ((2u << REACH) - 1);
      if (Dx > 1) {
        line = 0;
#pragma unroll
        for (int d = 0; d < Kx; d++) line |= (cells[i] >> d * Dx & 1) << d;
      }
      const int k = i * Kx;
      seen[k / 32] |= line << k % 32;
      if (k % 32 + Kx > 32) seen[(k / 32 + 1) % MASKS] |= line >> (32 - k % 32) % 32;
    }
  }
};

// table[k * pitch + o] = row_of(k), and the masks of each 32 sites; a warp's lanes come together.
//   seen   through which offsets this site sees anything
template <int OFFSETS, class RowOf> __device__ __forceinline__ void write_column(
    RowOf row_of, const u32 (&seen)[(OFFSETS + 31) / 32], int o, bool alive, int* table, int pitch, u32* masks,
    int mask_words) {
#pragma unroll
  for (int i = 0; i < (OFFSETS + 31) / 32; i++) {
    const u32 all = __reduce_or_sync(~0u, seen[i]);
    if ((o & 31) == 0 && alive) masks[(o >> 5) * mask_words + i] = all;
  }
  if (!alive) return;
  table += o;
#pragma unroll
  for (int k = 0; k < OFFSETS; k++, table += pitch) *table = row_of(k);
}

// The same where a warp's sites are the columns `o` that follow one another from anywhere in the tile `first` on:
// adds to the masks, for others have a part in its tiles.
template <int OFFSETS, class RowOf> __device__ __forceinline__ void add_to_column(
    RowOf row_of, const u32 (&seen)[(OFFSETS + 31) / 32], int o, bool alive, int first, int* table, int pitch,
    u32* masks, int mask_words) {
#pragma unroll
  for (int i = 0; i < (OFFSETS + 31) / 32; i++)
#pragma unroll
    for (int tile = first; tile < first + 2; tile++) {
      const u32 all = __reduce_or_sync(~0u, alive && o >> 5 == tile ? seen[i] : 0);
      if ((threadIdx.x & 31) == 0 && all) atomicOr(&masks[tile * mask_words + i], all);
    }
  if (!alive) return;
#pragma unroll
  for (int k = 0; k < OFFSETS; k++) table[(long long)k * pitch + o] = row_of(k);
}

// n / d for n < 2^31, by a product; the host finds the numbers (`divisor` in gpu_bitmap.py), shift < 0 for d = 1.
struct Divisor { u32 times; int shift; };
__device__ __forceinline__ int over(int n, Divisor d) {
  return d.shift < 0 ? n : (int)(__umulhi((u32)n, d.times) >> d.shift);
}

// A bitmap as `scan` left it, whose voxels are sites.
struct Scanned {
  const u32* words;
  const int *rank, *listed;
  int listed_capacity;
  int Z, Y, W;
  Divisor by_z, by_y, by_w;
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
//   words   that were listed, if there was room
__device__ __forceinline__ int4 scanned_cell(const Scanned& s, int o, int n, int place, int words) {
  const int lane = o & 31, tile = o & ~31;
  place = tile < n ? min(place + lane, min(words, s.listed_capacity) - 1) : 0;
  const int word = s.listed[place];
  const u32 bits = s.words[word];
  const int row = s.rank[word], start = max(row - tile, 0);
  const u32 starts = __reduce_or_sync(~0u, start < 32 ? 1u << start : 0);
  const int from = max(__popc(starts & ((2u << lane) - 1)) - 1, 0);
  const int own_word = __shfl_sync(~0u, word, from), own_row = __shfl_sync(~0u, row, from);
  const u32 own_bits = __shfl_sync(~0u, bits, from);
  const int line = over(own_word, s.by_w), plane = over(line, s.by_y), frame = over(plane, s.by_z);
  return make_int4(
      frame, plane - frame * s.Z, line - plane * s.Y,
      (own_word - line * s.W) * 32 + place_of_bit(own_bits, o - own_row));
}
