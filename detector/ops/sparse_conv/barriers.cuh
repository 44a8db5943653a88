// Barriers in shared memory, and copies that end their phases; from sm_90 on. After `device.cuh`.

#if __CUDA_ARCH__ >= 900
__device__ __forceinline__ void set_up_barrier(u32 barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}
// Waits for the end of a phase: of the first, third, ... for 0, of the others for 1.
__device__ __forceinline__ void wait_phase(u32 barrier, int phase) {
  asm volatile(
      "{.reg .pred p;\nAGAIN: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@!p bra AGAIN;}" ::"r"(barrier),
      "r"(phase)
      : "memory");
}
__device__ __forceinline__ void arrive_at(u32 barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// A copy to shared memory that ends the barrier's phase.
__device__ __forceinline__ void copy_there(u32* to, const u32* from, u32 bytes, u32 barrier) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
          shared_address(to)),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}
#endif
