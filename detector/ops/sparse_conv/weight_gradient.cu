// Weight gradient of a sparse convolution in 16-bit floats on tensor cores, accumulated in float32.
//
// gradient[k] = sum over o of features[table[k, o]] (outer) out_gradient[o]
//
// A warp works on one offset and every so many rows: it lists the pairs (input row, output row)
// that exist, fetches sixteen of them at a time into its own shared memory, several fetches under
// way, and multiplies. Warps of a block that share an offset add up in a fixed order; blocks write
// partial sums that `reduce` adds in a fixed order: the result is the same every time.
//
// Macros:
//   CIN, COUT    channels of one row, multiples of 16
//   TIN, TOUT    channels of a block, 16, 32 or 64, that divide them
//   SHARE        offsets of a block, next to one another: their pairs share rows, thus the cache
//   TEAM         warps for each of them
//   STAGES       fetches under way
//   BF16         1: bfloat16, 0: float16

#include "../device.cuh"
#include "../half.cuh"

#define IN_CHUNKS (TIN / 8)    // of 16 bytes in a row
#define OUT_CHUNKS (TOUT / 8)
#define STAGE_BYTES (16 * 2 * (TIN + TOUT))
#define AHEAD 4    // rows a lane looks at in one turn
#define QUEUE 256  // pairs; holds what is left and a turn's
#define MI (TIN / 16)
#define NI (TOUT / 8)

// 16-byte chunks of a row are swapped around so that eight rows' chunks lie in different banks.
template <int CHUNKS> __device__ __forceinline__ u32 place(int row, int chunk) {
  if (CHUNKS >= 8) return (row * CHUNKS + (chunk ^ (row & 7))) * 16;
  if (CHUNKS == 4) return (row * 4 + (chunk ^ (row >> 1 & 3))) * 16;
  return (row * 2 + (chunk ^ (row >> 2 & 1))) * 16;
}

__device__ __forceinline__ void fetch(u32 to, const void* from, bool real) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(real ? 16 : 0) : "memory");
}

// Features and gradients of up to sixteen pairs; what is missing is zero.
__device__ __forceinline__ void fetch_pairs(
    u32 stage, const int2* queue, int start, int count, const u16* features, const u16* out_gradient,
    int from_in, int from_out) {
  int lane = threadIdx.x & 31;
#pragma unroll
  for (int i = lane; i < 16 * IN_CHUNKS; i += 32) {
    int p = i / IN_CHUNKS, c = i % IN_CHUNKS;
    int row = queue[(start + p) & (QUEUE - 1)].x;
    bool real = p < count;
    fetch(stage + place<IN_CHUNKS>(p, c), features + (real ? (long long)row * CIN + from_in + c * 8 : 0), real);
  }
#pragma unroll
  for (int i = lane; i < 16 * OUT_CHUNKS; i += 32) {
    int p = i / OUT_CHUNKS, c = i % OUT_CHUNKS;
    int row = queue[(start + p) & (QUEUE - 1)].y;
    bool real = p < count;
    fetch(stage + 32 * TIN + place<OUT_CHUNKS>(p, c),
          out_gradient + (real ? (long long)row * COUT + from_out + c * 8 : 0), real);
  }
  asm volatile("cp.async.commit_group;" ::: "memory");
}

__device__ __forceinline__ void load_turned(u32 (&v)[4], u32 address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3]) : "r"(address) : "memory");
}

__device__ __forceinline__ void multiply(float (&sum)[MI][NI][4], u32 stage) {
  int lane = threadIdx.x & 31;
  u32 b[NI / 2][4];
#pragma unroll
  for (int n = 0; n < NI / 2; n++)  // pairs 0-7, 8-15 of chunk 2n, then of chunk 2n + 1
    load_turned(b[n], stage + 32 * TIN + place<OUT_CHUNKS>((lane & 7) + (lane & 8), 2 * n + (lane >> 4)));
#pragma unroll
  for (int m = 0; m < MI; m++) {
    u32 a[4];  // chunk 2m, 2m + 1 of pairs 0-7, then of pairs 8-15
    load_turned(a, stage + place<IN_CHUNKS>((lane & 7) + (lane >> 4) * 8, 2 * m + (lane >> 3 & 1)));
#pragma unroll
    for (int n = 0; n < NI; n++)
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32." HALF "." HALF ".f32 "
          "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
          : "+f"(sum[m][n][0]), "+f"(sum[m][n][1]), "+f"(sum[m][n][2]), "+f"(sum[m][n][3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[n / 2][n % 2 * 2]), "r"(b[n / 2][n % 2 * 2 + 1]));
  }
}

// Grid: (jobs, tiles of channels). Jobs are slices of rows of groups of SHARE offsets: `slices` of each
// group, and `heavy_slices` of group `heavy`, a submanifold kernel's centre, which has the most pairs.
// partial: [slice][k][CIN][COUT].
extern "C" __global__ void __launch_bounds__(SHARE * TEAM * 32, 1) weight_gradient(
    const u16* features, const u16* out_gradient, const int* table, int pitch, const int* count, int capacity, int offsets, int slices, int heavy, int heavy_slices,
    float* partial) {
  extern __shared__ __align__(128) unsigned char memory[];
  // The same in all lanes, and the compiler sees that it is.
  int lane = threadIdx.x & 31, warp = __reduce_max_sync(~0u, threadIdx.x >> 5);
  // The heavy group's jobs come first.
  int job = blockIdx.x, group = heavy, slice = job, of = heavy_slices;
  if (job >= heavy_slices) {
    job -= heavy_slices;
    group = job / slices;
    slice = job % slices;
    of = slices;
    if (heavy >= 0 && group >= heavy) group++;
  }
  int member = warp / SHARE, k = group * SHARE + warp % SHARE;
  int from_in = blockIdx.y / (COUT / TOUT) * TIN, from_out = blockIdx.y % (COUT / TOUT) * TOUT;
  u32 stages = shared_address(memory) + warp * STAGES * STAGE_BYTES;
  int2* queue = (int2*)(memory + SHARE * TEAM * STAGES * STAGE_BYTES) + warp * QUEUE;

  const int n = min(*count, capacity), turns = (n + 32 * AHEAD - 1) / (32 * AHEAD), stride = of * TEAM;
  float sum[MI][NI][4] = {};
  int queued = 0, issued = 0, fetched = 0, done = 0;  // pairs, pairs, fetches, fetches
  int turn = slice * TEAM + member;
  // Rows of the turn after this one are loaded while this one's are worked on.
  int ahead[AHEAD];
  auto look = [&](int turn) {
#pragma unroll
    for (int i = 0; i < AHEAD; i++) {
      int o = (turn * AHEAD + i) * 32 + lane;
      ahead[i] = o < n ? table[(long long)k * pitch + o] : -1;
    }
  };
  if (k < offsets) {
    look(turn);
    while (turn < turns || issued < queued) {
      if (turn < turns) {
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
          u32 present = __ballot_sync(~0u, ahead[i] >= 0);
          if (ahead[i] >= 0)
            queue[(queued + __popc(present & ((1u << lane) - 1))) & (QUEUE - 1)] =
                make_int2(ahead[i], (turn * AHEAD + i) * 32 + lane);
          queued += __popc(present);
        }
        turn += stride;
        look(turn);
        __syncwarp();
      }
      bool last = turn >= turns;
      while (queued - issued >= 16 || (last && queued > issued)) {
        int take = min(16, queued - issued);
        if (fetched - done == STAGES) {
          asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 1) : "memory");
          __syncwarp();
          multiply(sum, stages + done % STAGES * STAGE_BYTES);
          __syncwarp();
          done++;
        }
        fetch_pairs(stages + fetched % STAGES * STAGE_BYTES, queue, issued, take, features, out_gradient, from_in, from_out);
        issued += take;
        fetched++;
        __syncwarp();
      }
    }
    asm volatile("cp.async.wait_all;" ::: "memory");
    __syncwarp();
    for (; done < fetched; done++) multiply(sum, stages + done % STAGES * STAGE_BYTES);
  }
  __syncthreads();

  // The team adds up, one member after another.
  float* shared = (float*)memory;  // [SHARE][TIN * TOUT / 2] float2 a thread: its own place
  const int mine = (warp % SHARE) * (MI * NI * 4 * 32) + lane;
  for (int sender = TEAM - 1; sender > 0; sender--) {
    if (member == sender)
#pragma unroll
      for (int m = 0; m < MI; m++)
#pragma unroll
        for (int i = 0; i < NI; i++)
#pragma unroll
          for (int r = 0; r < 4; r++) shared[mine + ((m * NI + i) * 4 + r) * 32] = sum[m][i][r];
    __syncthreads();
    if (member == sender - 1)
#pragma unroll
      for (int m = 0; m < MI; m++)
#pragma unroll
        for (int i = 0; i < NI; i++)
#pragma unroll
          for (int r = 0; r < 4; r++) sum[m][i][r] += shared[mine + ((m * NI + i) * 4 + r) * 32];
    __syncthreads();
  }
  if (member == 0 && k < offsets) {
    int g = lane >> 2, t = lane & 3;
    float* to = partial + ((long long)slice * offsets + k) * CIN * COUT;
#pragma unroll
    for (int m = 0; m < MI; m++)
#pragma unroll
      for (int i = 0; i < NI; i++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
          int in = from_in + m * 16 + g + 8 * h, out = from_out + i * 8 + 2 * t;
          *(float2*)(to + (long long)in * COUT + out) = make_float2(sum[m][i][2 * h], sum[m][i][2 * h + 1]);
        }
  }
}

// gradient[k, i, :] = sum of the slices, for the first `source` of CIN input channels.
extern "C" __global__ void reduce(
    const float* partial, int slices, int heavy, int heavy_slices, int offsets, int source, float* gradient) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= offsets * source * COUT) return;
  int out = i % COUT, in = i / COUT % source, k = i / (COUT * source);
  if (k / SHARE == heavy) slices = heavy_slices;
  const float* from = partial + ((long long)k * CIN + in) * COUT + out;
  const long long step = (long long)offsets * CIN * COUT;
  float total = 0;
  int s = 0;
  for (; s + 4 <= slices; s += 4) {
    float a = from[s * step], b = from[(s + 1) * step], c = from[(s + 2) * step], d = from[(s + 3) * step];
    total += (a + b) + (c + d);
  }
  for (; s < slices; s++) total += from[s * step];
  gradient[i] = total;
}
