// Entries of kernel maps' tables.
//
// Offsets that follow one another along x see adjacent cells, and those of them that hold anything have adjacent
// rows. So a table has one entry for a run of N offsets: bit d says whether there is anything at the d-th, and
// above these bits stands the row of the first that there is. 0 is nothing at all. With N 1 an entry is the row
// itself, or -1.
template <int N> struct Entry {
  static const int nothing = N > 1 ? 0 : -1;
  // The row at the d-th offset of the run, or -1.
  static __device__ __forceinline__ int row(int entry, int d) {
    if (N == 1) return entry;
    return (u32)entry >> d & 1 ? (int)((u32)entry >> N) + __popc((u32)entry & ((1u << d) - 1)) : -1;
  }
  // Which offsets of the run see anything.
  static __device__ __forceinline__ u32 seen(int entry) {
    return N > 1 ? (u32)entry & ((1u << N) - 1) : (u32)(entry >= 0);
  }
};
