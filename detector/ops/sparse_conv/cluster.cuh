// The CLUSTER blocks of a cluster share what they load: each fetches some of it for all. From sm_90 on; one block a
// cluster is none.

#if CLUSTER > 1
#define IN_CLUSTERS __cluster_dims__(CLUSTER, 1, 1)
__device__ __forceinline__ u32 cluster_rank() {
  u32 rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
__device__ __forceinline__ void meet_cluster() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
#else
#define IN_CLUSTERS
__device__ __forceinline__ u32 cluster_rank() { return 0; }
__device__ __forceinline__ void meet_cluster() { __syncthreads(); }
#endif

// Starts a copy into the shared memory of all blocks of the cluster, which ends a phase of their barriers.
__device__ __forceinline__ void copy_to_all(u32 to, const u32* from, u32 bytes, u32 barrier) {
#if CLUSTER > 1
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], %2, [%3], %4;" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "h"((u16)((1 << CLUSTER) - 1))
      : "memory");
#else
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from),
      "r"(bytes), "r"(barrier)
      : "memory");
#endif
}
