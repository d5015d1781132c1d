// What AddressSanitizer has to be told of the engine. Without it, all of this is nothing.
#pragma once

#include <cstddef>

#if defined(CUDA_EMU_ASAN)
#include <sanitizer/asan_interface.h>
#endif

namespace cuda_emu {

// Until it is allowed again, it reports every thread that touches this memory.
inline void forbid(void* address, size_t bytes) {
#if defined(CUDA_EMU_ASAN)
  __asan_poison_memory_region(address, bytes);
#endif
}

inline void allow(void* address, size_t bytes) {
#if defined(CUDA_EMU_ASAN)
  __asan_unpoison_memory_region(address, bytes);
#endif
}

}  // namespace cuda_emu
