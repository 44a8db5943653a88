// What several sources share.

typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned short u16;

#if __CUDA_ARCH__ >= 900  // where it may start before the kernel ahead of it has ended
#define WAIT_FOR_EARLIER() asm volatile("griddepcontrol.wait;" ::: "memory")
#define LET_LATER_START() asm volatile("griddepcontrol.launch_dependents;")
#else
#define WAIT_FOR_EARLIER()
#define LET_LATER_START()
#endif

__device__ __forceinline__ u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }
