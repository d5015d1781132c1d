// Rows are worked on in chunks whose size follows from the shape alone. Whatever a chunk sums up is therefore
// the same bits whichever thread runs it, and so is the total, which adds the chunks in order.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "host/rows.h"

namespace ce_ext::cpu {

// Logits of a chunk, where its rows are not longer: they stay in the second-level cache from one use to the next.
constexpr int64_t kChunkElements = 8192;
constexpr int64_t kMaxChunkRows = 512;
// Below this many chunks a second thread costs more to wake than it saves.
constexpr int64_t kChunksPerTask = 4;

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

  Chunks(int64_t rows, int64_t groups_, int64_t chunk_rows_)
      : groups(groups_),
        group_rows(groups > 0 ? rows / groups : 0),
        chunk_rows(chunk_rows_),
        count((group_rows + chunk_rows - 1) / chunk_rows * groups) {}

  Chunk operator[](int64_t index) const {
    const int64_t start = index / groups * chunk_rows;
    return {index % groups * group_rows + start, std::min(chunk_rows, group_rows - start)};
  }

  // Calls f(index, chunk) for every chunk, on all threads.
  template <class F>
  void parallel(F f) const {
    at::parallel_for(0, count, kChunksPerTask, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) f(i, (*this)[i]);
    });
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
