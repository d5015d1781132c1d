// What ThreadSanitizer has to be told of the engine. Without it, all of this is nothing.
#pragma once

#if defined(CUDA_EMU_TSAN)
#include <sanitizer/tsan_interface.h>

extern "C" void AnnotateIgnoreWritesBegin(const char* file, int line);
extern "C" void AnnotateIgnoreWritesEnd(const char* file, int line);
#endif

namespace cuda_emu {

// Who acquires comes after all that was done by those who have released.
class HappensBefore {
 public:
  void release() {
#if defined(CUDA_EMU_TSAN)
    __tsan_release(this);
#endif
  }
  void acquire() {
#if defined(CUDA_EMU_TSAN)
    __tsan_acquire(this);
#endif
  }
};

// Within it, what the allocator does to memory is no access of the thread that runs.
class UntrackedMemory {
 public:
  UntrackedMemory() {
#if defined(CUDA_EMU_TSAN)
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
#endif
  }
  ~UntrackedMemory() {
#if defined(CUDA_EMU_TSAN)
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
#endif
  }
};

}  // namespace cuda_emu
