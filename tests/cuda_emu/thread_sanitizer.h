// What ThreadSanitizer has to be told of the engine. Without it, all of this is nothing.
#pragma once

#include <cstddef>

#if defined(CUDA_EMU_TSAN)
#include <sanitizer/tsan_interface.h>

extern "C" void __tsan_read_range(void* address, unsigned long bytes);
extern "C" void __tsan_write_range(void* address, unsigned long bytes);
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

// What the thread that runs does to memory, where the engine does it for it.
inline void note_read(const void* address, size_t bytes) {
#if defined(CUDA_EMU_TSAN)
  __tsan_read_range(const_cast<void*>(address), bytes);
#endif
}
inline void note_write(void* address, size_t bytes) {
#if defined(CUDA_EMU_TSAN)
  __tsan_write_range(address, bytes);
#endif
}

// What f does is done by somebody who is none of the threads, and comes after nobody but whom it acquires from.
template <class F>
void as_bystander(const F& f) {
#if defined(CUDA_EMU_TSAN)
  void* const self = __tsan_get_current_fiber();
  void* const bystander = __tsan_create_fiber(0);
  __tsan_switch_to_fiber(bystander, __tsan_switch_to_fiber_no_sync);
  f();
  __tsan_switch_to_fiber(self, __tsan_switch_to_fiber_no_sync);
  __tsan_destroy_fiber(bystander);
#else
  f();
#endif
}

}  // namespace cuda_emu
