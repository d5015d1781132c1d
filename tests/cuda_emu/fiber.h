// A stack of its own to run code on, and the switch between two of them, known to the sanitizers. x86-64 Linux.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <new>

#if defined(CUDA_EMU_ASAN)
#include <pthread.h>
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(CUDA_EMU_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

// Saves the registers that a call must preserve, leaves the stack pointer in *from, and goes on at `to`.
extern "C" void cuda_emu_switch_stack(void** from, void* to);
asm(R"(
.text
.weak cuda_emu_switch_stack
.hidden cuda_emu_switch_stack
.type cuda_emu_switch_stack, @function
cuda_emu_switch_stack:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size cuda_emu_switch_stack, . - cuda_emu_switch_stack
)");

namespace cuda_emu {

class Fiber {
 public:
  Fiber() = default;
  Fiber(const Fiber&) = delete;

  // Makes this the fiber that runs now, on the stack that its thread came with.
  void adopt_caller() {
#if defined(CUDA_EMU_ASAN)
    pthread_attr_t attributes;
    void* bottom;
    pthread_getattr_np(pthread_self(), &attributes);
    pthread_attr_getstack(&attributes, &bottom, &stack_bytes_);
    pthread_attr_destroy(&attributes);
    stack_ = static_cast<char*>(bottom);
#endif
#if defined(CUDA_EMU_TSAN)
    tsan_fiber_ = __tsan_get_current_fiber();
#endif
  }

  // Lets the next switch_to this fiber call `entry`, which must never return.
  void start(void (*entry)()) {
    if (!stack_) allocate();
    void** top = reinterpret_cast<void**>(stack_ + stack_bytes_);
    *--top = nullptr;                              // where entry would return to; aligns the stack as a call does
    *--top = reinterpret_cast<void*>(entry);       // where the switch returns to
    for (int i = 0; i < 6; ++i) *--top = nullptr;  // the registers that it restores
    stack_pointer_ = top;
#if defined(CUDA_EMU_ASAN)
    __asan_unpoison_memory_region(stack_, stack_bytes_);  // of frames that were left without a return
    fake_stack_ = nullptr;
#endif
  }

  void switch_to(Fiber& to) {
#if defined(CUDA_EMU_ASAN)
    __sanitizer_start_switch_fiber(&fake_stack_, to.stack_, to.stack_bytes_);
#endif
    to.run_as();
    cuda_emu_switch_stack(&stack_pointer_, to.stack_pointer_);
    arrived();
  }

  // The first thing that a started fiber must do.
  void arrived() {
#if defined(CUDA_EMU_ASAN)
    __sanitizer_finish_switch_fiber(fake_stack_, nullptr, nullptr);
#endif
  }

  // For ThreadSanitizer, this fiber does what follows. That no switch orders anything is what lets it see races.
  void run_as() const {
#if defined(CUDA_EMU_TSAN)
    __tsan_switch_to_fiber(tsan_fiber_, __tsan_switch_to_fiber_no_sync);
#endif
  }

 private:
  void allocate() {
    constexpr size_t kGuardBytes = 4096;
    stack_bytes_ = 256 * 1024;
    void* memory = mmap(nullptr, kGuardBytes + stack_bytes_, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, kGuardBytes, PROT_NONE) != 0) throw std::bad_alloc();
    stack_ = static_cast<char*>(memory) + kGuardBytes;
#if defined(CUDA_EMU_TSAN)
    tsan_fiber_ = __tsan_create_fiber(0);
#endif
  }

  char* stack_ = nullptr;  // its lowest address; kept for the life of the process
  size_t stack_bytes_ = 0;
  void* stack_pointer_ = nullptr;
#if defined(CUDA_EMU_ASAN)
  void* fake_stack_ = nullptr;
#endif
#if defined(CUDA_EMU_TSAN)
  void* tsan_fiber_ = nullptr;
#endif
};

}  // namespace cuda_emu
