// Rotated boxes (x, y, z, l, w, h, yaw) in float64, as `cpu.py` computes them.

typedef unsigned int u32;
typedef unsigned long long u64;

struct Box { double x, y, z, l, w, h, yaw; bool usable; };

__device__ __forceinline__ Box load_box(const double* boxes, int columns, int row) {
  const double* b = boxes + (long long)row * columns;
  Box box{b[0], b[1], b[2], b[3], b[4], b[5], b[6], true};
#pragma unroll
  for (int i = 0; i < 7; i++) box.usable &= isfinite(b[i]);
  box.usable &= box.l > 0 && box.w > 0 && box.h > 0;
  return box;
}

#define MAX_CORNERS 8  // of a rectangle cut by four half planes

// Keeps what has sign * coordinate <= limit; returns the number of corners written.
__device__ int clip(const double (*outline)[2], int corners, int axis, double sign, double limit, double (*clipped)[2]) {
  int written = 0, before = corners - 1;
  double depth_before = limit - sign * outline[before][axis];
  for (int corner = 0; corner < corners; corner++) {
    double depth = limit - sign * outline[corner][axis];
    if ((depth > 0 && depth_before < 0) || (depth < 0 && depth_before > 0)) {
      double share = depth_before / (depth_before - depth);
      int other = 1 - axis;
      clipped[written][axis] = sign * limit;
      clipped[written][other] = outline[before][other] + share * (outline[corner][other] - outline[before][other]);
      written++;
    }
    if (depth >= 0 && written < MAX_CORNERS) {
      clipped[written][0] = outline[corner][0];
      clipped[written][1] = outline[corner][1];
      written++;
    }
    if (written == MAX_CORNERS) break;
    before = corner;
    depth_before = depth;
  }
  return written;
}

// Area shared by two usable boxes seen from above: b's corners, in the frame of a, clipped by a's
// four sides in turn (Sutherland and Hodgman, 1974).
__device__ double intersection_area(const Box& a, const Box& b) {
  double dx = b.x - a.x, dy = b.y - a.y;
  double reach = (hypot(a.l, a.w) + hypot(b.l, b.w)) / 2;
  if (dx * dx + dy * dy >= reach * reach) return 0;
  double cosine = cos(a.yaw), sine = sin(a.yaw);
  double x = dx * cosine + dy * sine, y = dy * cosine - dx * sine;
  cosine = cos(b.yaw - a.yaw);
  sine = sin(b.yaw - a.yaw);
  double lx = b.l / 2 * cosine, ly = b.l / 2 * sine, wx = -b.w / 2 * sine, wy = b.w / 2 * cosine;
  double outline[MAX_CORNERS][2] = {
      {x + lx + wx, y + ly + wy}, {x - lx + wx, y - ly + wy}, {x - lx - wx, y - ly - wy}, {x + lx - wx, y + ly - wy}};
  double clipped[MAX_CORNERS][2];
  int corners = clip(outline, 4, 0, -1, a.l / 2, clipped);
  if (corners < 3) return 0;
  corners = clip(clipped, corners, 0, 1, a.l / 2, outline);
  if (corners < 3) return 0;
  corners = clip(outline, corners, 1, -1, a.w / 2, clipped);
  if (corners < 3) return 0;
  corners = clip(clipped, corners, 1, 1, a.w / 2, outline);
  if (corners < 3) return 0;
  double doubled = 0;
  for (int c = 1; c < corners - 1; c++)
    doubled += (outline[c][0] - outline[0][0]) * (outline[c + 1][1] - outline[0][1]) -
               (outline[c][1] - outline[0][1]) * (outline[c + 1][0] - outline[0][0]);
  return fmax(doubled / 2, 0.0);
}

__device__ double iou(const Box& a, const Box& b, int volume) {
  if (!a.usable || !b.usable) return 0;
  double shared = intersection_area(a, b), total = a.l * a.w + b.l * b.w;
  if (volume) {
    double z = b.z - a.z;
    shared *= fmax(fmin(a.h / 2, z + b.h / 2) - fmax(-a.h / 2, z - b.h / 2), 0.0);
    total = a.l * a.w * a.h + b.l * b.w * b.h;
  }
  return shared <= 0 ? 0 : fmin(shared / (total - shared), 1.0);
}

extern "C" __global__ void overlap(
    const double* a, int columns_a, int n, const double* b, int columns_b, int m, int volume, double* out) {
  long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (i >= (long long)n * m) return;
  out[i] = iou(load_box(a, columns_a, i / m), load_box(b, columns_b, i % m), volume);
}

// suppressed_by[i * words + j / 64], bit j % 64: box order[j], later in order than box order[i] and
// of the same group, overlaps it by more than the threshold. `labels` may be null: one group.
extern "C" __global__ void suppressions(
    const double* boxes, int columns, const long long* order, const long long* labels, int n, double threshold,
    u64* suppressed_by, int words) {
  int i = blockIdx.y, j = blockIdx.x * blockDim.x + threadIdx.x;
  bool overlaps = false;
  if (j > i && j < n) {
    long long a = order[i], b = order[j];
    if (!labels || labels[a] == labels[b])
      overlaps = iou(load_box(boxes, columns, a), load_box(boxes, columns, b), 0) > threshold;
  }
  u32 bits = __ballot_sync(~0u, overlaps);
  if ((threadIdx.x & 31) == 0 && j < words * 64) ((u32*)(suppressed_by + (long long)i * words))[j >> 5] = bits;
}

// Walks from the best box to the worst. One warp. keep[place] = 1 where the box at that place in
// order is kept; `skip` (may be null) marks boxes that neither are kept nor suppress, by place.
extern "C" __global__ void __launch_bounds__(32) walk(
    const u64* suppressed_by, int words, int n, const unsigned char* skip, unsigned char* keep) {
  extern __shared__ u64 removed[];
  int lane = threadIdx.x;
  for (int w = lane; w < words; w += 32) {
    u64 bits = 0;
    if (skip)
      for (int b = 0; b < 64 && w * 64 + b < n; b++) bits |= (u64)(skip[w * 64 + b] != 0) << b;
    removed[w] = bits;
  }
  __syncwarp();
  for (int i = 0; i < n; i++) {
    bool gone = removed[i >> 6] >> (i & 63) & 1;
    if (lane == 0) keep[i] = !gone;
    if (!gone)
      for (int w = (i >> 6) + lane; w < words; w += 32) removed[w] |= suppressed_by[(long long)i * words + w];
    __syncwarp();
  }
}

__device__ __forceinline__ bool contains(const double* box, double cosine, double sine, const double* point) {
  double dx = point[0] - box[0], dy = point[1] - box[1];
  return fabs(point[2] - box[2]) <= box[5] / 2 && fabs(dx * cosine + dy * sine) <= box[3] / 2 &&
         fabs(dy * cosine - dx * sine) <= box[4] / 2;
}

// directions[n] = cosine and sine of yaw; not a number, which contains nothing, for unusable boxes.
extern "C" __global__ void find_directions(const double* boxes, int columns, int n, double2* directions) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  Box box = load_box(boxes, columns, i);
  double nothing = __longlong_as_double(0x7ff8000000000000ll);
  directions[i] = box.usable ? make_double2(cos(box.yaw), sin(box.yaw)) : make_double2(nothing, nothing);
}

// inside[p * n + i] (may be null) and first[p], the first box that contains point p, or -1 (may be
// null).
extern "C" __global__ void points_inside(
    const double* points, int point_columns, int count, const double* boxes, int columns, const double2* directions,
    int n, unsigned char* inside, long long* first) {
  int p = blockIdx.x * blockDim.x + threadIdx.x;
  if (p >= count) return;
  double point[3];
  for (int i = 0; i < 3; i++) point[i] = points[(long long)p * point_columns + i];
  long long found = -1;
  for (int i = 0; i < n; i++) {
    bool in = contains(boxes + (long long)i * columns, directions[i].x, directions[i].y, point);
    if (inside) inside[(long long)p * n + i] = in;
    if (in && found < 0) {
      found = i;
      if (!inside) break;
    }
  }
  if (first) first[p] = found;
}
