// The shared memory of a block: the arrays that its threads have asked for.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "thread_sanitizer.h"

namespace cuda_emu {

class SharedMemory {
 public:
  // The array that `key` stands for: filled with 0xff, which makes NaN of floats, when it is first asked for.
  void* array(const void* key, size_t bytes) {
    for (const Array& array : arrays_) {
      if (array.key == key) return array.memory.get();
    }
    const UntrackedMemory scope;
    void* memory = nullptr;
    if (posix_memalign(&memory, 16, bytes) != 0) throw std::bad_alloc();
    std::memset(memory, 0xff, bytes);
    arrays_.push_back({key, bytes, {memory, &std::free}});
    return memory;
  }

  // Whether one of the arrays has all of these bytes.
  bool has(const void* address, size_t bytes) const {
    const Array* const array = array_of(address);
    return array && uintptr_t(address) - array->begin() + bytes <= array->bytes;
  }

  // Where the memory of another block of the kernel has what this one has at the address; null if this one lacks it.
  void* same_place_in(SharedMemory& other, const void* address) const {
    const Array* const array = array_of(address);
    if (!array) return nullptr;
    return static_cast<char*>(other.array(array->key, array->bytes)) + (uintptr_t(address) - array->begin());
  }

  void clear() { arrays_.clear(); }

 private:
  struct Array {
    const void* key;
    size_t bytes;
    std::unique_ptr<void, decltype(&std::free)> memory;

    uintptr_t begin() const { return uintptr_t(memory.get()); }
  };

  const Array* array_of(const void* address) const {
    for (const Array& array : arrays_) {
      if (uintptr_t(address) - array.begin() < array.bytes) return &array;
    }
    return nullptr;
  }

  std::vector<Array> arrays_;
};

}  // namespace cuda_emu
