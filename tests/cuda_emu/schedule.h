// Who goes on, where several can, and in which order blocks come.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace cuda_emu {

class Schedule {
 public:
  // What CUDA_EMU_SCHEDULE says.
  Schedule() {
    const char* variable = std::getenv("CUDA_EMU_SCHEDULE");
    const std::string_view text = variable ? variable : "forward";
    if (text == "reverse") {
      order_ = Order::kReverse;
    } else if (text.starts_with("random:")) {
      order_ = Order::kRandom;
      random_.seed(std::strtoull(variable + std::strlen("random:"), nullptr, 10));
    } else if (text != "forward") {
      throw std::runtime_error("CUDA_EMU_SCHEDULE must be forward, reverse or random:SEED, but got " +
                               std::string(text));
    }
  }

  // One of the bits that are set.
  unsigned choose(uint32_t bits) {
    if (order_ == Order::kForward) return std::countr_zero(bits);
    if (order_ == Order::kReverse) return 31 - std::countl_zero(bits);
    for (unsigned skip = random_() % std::popcount(bits); skip > 0; --skip) bits &= bits - 1;
    return std::countr_zero(bits);
  }

  // Whether what may happen now or later happens now.
  bool is_early() { return order_ == Order::kReverse || (order_ == Order::kRandom && random_() % 4 == 0); }

  // One of 0 .. count - 1.
  size_t index(size_t count) {
    if (order_ == Order::kForward) return 0;
    return order_ == Order::kReverse ? count - 1 : random_() % count;
  }

  // A permutation of 0 .. count - 1.
  std::vector<uint64_t> permutation(uint64_t count) {
    std::vector<uint64_t> order(count);
    for (uint64_t i = 0; i < count; ++i) order[i] = order_ == Order::kReverse ? count - 1 - i : i;
    if (order_ == Order::kRandom) std::shuffle(order.begin(), order.end(), random_);
    return order;
  }

 private:
  enum class Order { kForward, kReverse, kRandom };
  Order order_ = Order::kForward;
  std::minstd_rand random_;
};

}  // namespace cuda_emu
