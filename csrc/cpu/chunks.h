// Rows are worked on in chunks whose size follows from the shape alone. Whatever a chunk sums up is therefore
// the same bits whichever thread runs it, and so is the total, which adds the chunks in order.
#pragma once

#include <ATen/Parallel.h>
#include <c10/util/FunctionRef.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "host/rows.h"

namespace ce_ext::cpu {

// Logits of a chunk, where its rows are not longer: they stay in the second-level cache from one use to the next.
constexpr int64_t kChunkElements = 8192;
constexpr int64_t kMaxChunkRows = 512;
// Of fewer elements a second thread costs more to wake than it saves.
constexpr int64_t kElementsPerTask = 32768;

struct Chunk {
  int64_t first;
  int64_t rows;
};

// Equal groups of rows, each cut into chunks of its own. First comes the first chunk of every group: where groups are
// interleaved in memory, what one brings into the cache serves the next.
struct Chunks {
  int64_t groups;
  int64_t group_rows;
  int64_t chunk_rows;
  int64_t count;
  int64_t per_task;

  Chunks(int64_t rows, int64_t groups_, int64_t chunk_rows_, int64_t row_elements = 1)
      : groups(groups_),
        group_rows(groups > 0 ? rows / groups : 0),
        chunk_rows(chunk_rows_),
        count((group_rows + chunk_rows - 1) / chunk_rows * groups),
        per_task(std::max<int64_t>(kElementsPerTask / std::max<int64_t>(chunk_rows * row_elements, 1), 1)) {}

  Chunk operator[](int64_t index) const {
    const int64_t start = index / groups * chunk_rows;
    return {index % groups * group_rows + start, std::min(chunk_rows, group_rows - start)};
  }

  // Calls f(index, chunk) for every chunk, on all threads. (By a pointer to f, which costs nothing beside the work on a
  // chunk, and compilers much less than a parallel loop for each f.)
  void parallel(c10::function_ref<void(int64_t, const Chunk&)> f) const {
    at::parallel_for(0, count, per_task, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) f(i, (*this)[i]);
    });
  }
};

// Numbers that threads may share: all of them in one piece, or pieces of one size.
struct Pieces {
  int64_t total;
  int64_t size;
  int64_t count;

  Pieces(int64_t total_, int64_t size_) : total(total_), size(size_), count(size > 0 ? (total + size - 1) / size : 1) {}

  // Calls f(begin, n) for every piece, on all threads. (What f uses in a loop it has to copy first: the compiler cannot
  // know that nothing else writes to what it refers to.)
  void parallel(c10::function_ref<void(int64_t, int64_t)> f) const {
    if (count == 1) return f(0, total);
    at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) f(i * size, std::min(size, total - i * size));
    });
  }

  // What f(begin, n) gives for every piece, computed on all threads and added in order by add(sum, next).
  template <class T, class F, class Add>
  T sum(F f, Add add) const {
    if (count == 1) return f(0, total);
    std::vector<T> parts(count);
    parallel([&](int64_t begin, int64_t n) { parts[begin / size] = f(begin, n); });
    T result = parts[0];
    for (int64_t i = 1; i < count; ++i) add(result, parts[i]);
    return result;
  }
};

// The lowest row that any thread reports.
class FirstBadRow {
 public:
  void report(int64_t row) {
    int64_t seen = row_.load();
    while ((seen < 0 || row < seen) && !row_.compare_exchange_weak(seen, row)) {
    }
  }
  int64_t row() const { return row_.load(); }

 private:
  std::atomic<int64_t> row_{-1};
};

// Calls f(first, n) for the longest runs of rows in [first, first + n) that lie at one distance from each other.
template <class F>
void for_each_run(const RowDims& dims, int64_t first, int64_t rows, F f) {
  const int64_t inner = dims.sizes[dims.ndim - 1];
  for (const int64_t end = first + rows; first < end;) {
    const int64_t n = std::min(end - first, inner - first % inner);
    f(first, n);
    first += n;
  }
}

inline int64_t run_stride(const RowDims& dims, const RowStrides& strides) { return strides.strides[dims.ndim - 1]; }

// out[i] = the value that belongs to row first + i.
template <class S, class A>
void read_rows(const S* base, const RowDims& dims, const RowStrides& strides, const Chunk& chunk, A* out) {
  const int64_t stride = run_stride(dims, strides);
  for_each_run(dims, chunk.first, chunk.rows, [&](int64_t row, int64_t n) {
    const S* values = base + strides.offset(dims, row);
    if (stride == 0) {
      std::fill_n(out, n, static_cast<A>(*values));
    } else {
      for (int64_t i = 0; i < n; ++i) out[i] = static_cast<A>(values[i * stride]);
    }
    out += n;
  });
}

}  // namespace ce_ext::cpu
