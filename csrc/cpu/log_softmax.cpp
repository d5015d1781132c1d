// The CPU driver of log-softmax. Both directions take the rows in chunks: a first pass over the classes of a chunk
// finds what belongs to its rows, a second one, while the chunk is in the cache, writes the result.
#include "losses/log_softmax.h"

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include "cpu/backend.h"
#include "cpu/chunks.h"
#include "cpu/lanes.h"
#include "cpu/memory.h"
#include "cpu/row_plan.h"
#include "cpu/softmax_by_class.h"
#include "cpu/softmax_by_row.h"

namespace ce_ext::cpu {
namespace {

template <class S, class Out>
class Forward {
  using A = opmath_t<S>;
  using V = Lanes<A>;
  using Sums = ChunkSums<A, Gaps::kNone, false>;

 public:
  explicit Forward(const LogSoftmaxForward& p)
      : p_(p),
        x_{static_cast<const S*>(p.input), p.row_dims, p.input_rows, p.input_class_stride},
        y_{static_cast<Out*>(p.output), p.row_dims, p.output_rows, p.output_class_stride},
        plan_(RowPlan::make<A>(p.rows, 1, p.classes, {p.input_class_stride, p.output_class_stride})) {}

  void run() const {
    advise_huge_pages(p_.output, p_.rows * p_.classes * sizeof(Out));
    plan_.chunks.parallel([&](int64_t, const Chunk& chunk) {
      Sums sums;
      Tile<A> tile(chunk.rows);
      gather(chunk, tile, sums);
      Rows rows;
      for (int64_t r = 0; r < chunk.rows; r += V::kSize) {
        const RowStats<V> stats = sums.template get<V>(r).finish();
        stats.max.store(rows.max + r);
        stats.log_sum.store(rows.log_sum + r);
      }
      plan_.classes_as_lanes ? write_by_class(chunk, rows) : write_by_row(chunk, tile, rows);
    });
  }

 private:
  struct Rows {
    alignas(64) A max[kMaxChunkRows];
    alignas(64) A log_sum[kMaxChunkRows];

    template <class T>
    LogSoftmax<T> get(int64_t r) const {
      return {{read<T>(max + r), read<T>(log_sum + r)}};
    }
  };

  void gather(const Chunk& chunk, Tile<A>& tile, Sums& sums) const {
    const Logits<V, false> unchanged;
    WeightsByRow<A> no_weights(nullptr);
    if (!plan_.classes_as_lanes) return softmax_sums(tile, x_, unchanged, chunk, p_.classes, no_weights, sums, {});
    const int64_t padded_rows = V::round_up(chunk.rows);
    for (int64_t r = 0; r < chunk.rows; ++r) {
      const RowLogits<A, S, false> row(x_.row(chunk.first + r), unchanged);
      sums.set(r, softmax_sums<Gaps::kNone, false>(row, plan_.pieces, WeightsByClass<A>{nullptr}, nullptr));
    }
    for (int64_t r = chunk.rows; r < padded_rows; ++r) sums.set(r, SoftmaxSums<A, Gaps::kNone>());
  }

  void write_by_class(const Chunk& chunk, const Rows& rows) const {
    for (int64_t r = 0; r < chunk.rows; ++r) {
      const S* x = x_.row(chunk.first + r);
      Out* y = y_.row(chunk.first + r);
      const LogSoftmax<V> row{{V(rows.max[r]), V(rows.log_sum[r])}};
      plan_.pieces.parallel([&](int64_t begin, int64_t count) {
        for_each_vector<V>(count, [&](int64_t i, int64_t n) C10_ALWAYS_INLINE_ATTRIBUTE {
          row.at(V::load(x + begin + i, n, A(0))).store(y + begin + i, n);
        });
      });
    }
  }

  void write_by_row(const Chunk& chunk, Tile<A>& tile, const Rows& rows) const {
    const RowsAhead<Out> y(y_, chunk.first);
    for (int64_t begin = 0; begin < p_.classes; begin += tile.max_classes()) {
      const int64_t n = std::min(tile.max_classes(), p_.classes - begin);
      tile.load(x_, chunk, begin, n);
      for (int64_t r = 0; r < chunk.rows; r += V::kSize) {
        const auto row = rows.template get<V>(r);
        for (int64_t c = 0; c < n; ++c) {
          row.at(V::load(tile[c] + r)).store(tile[c] + r);
          y.prefetch(r, begin + c);
        }
      }
      tile.store(y_, chunk, begin, n);
    }
  }

  const LogSoftmaxForward& p_;
  const Matrix<const S> x_;
  const Matrix<Out> y_;
  const RowPlan plan_;
};

template <class S, class Out>
class Backward {
  using A = opmath_t<S>;
  using V = Lanes<A>;

 public:
  explicit Backward(const LogSoftmaxBackward& p)
      : p_(p),
        grad_y_{static_cast<const Out*>(p.grad_output), p.row_dims, p.grad_output_rows, p.grad_output_class_stride},
        y_{static_cast<const Out*>(p.output), p.row_dims, p.output_rows, p.output_class_stride},
        grad_x_{static_cast<S*>(p.grad_input), p.row_dims, p.grad_input_rows, p.grad_input_class_stride},
        plan_(RowPlan::make<A>(p.rows, 1, p.classes,
                               {p.grad_output_class_stride, p.output_class_stride, p.grad_input_class_stride})) {}

  void run() const {
    advise_huge_pages(p_.grad_input, p_.rows * p_.classes * sizeof(S));
    plan_.chunks.parallel([&](int64_t, const Chunk& chunk) {
      if (plan_.classes_as_lanes) {
        for (int64_t r = 0; r < chunk.rows; ++r) write_row(chunk.first + r);
      } else {
        write_by_row(chunk);
      }
    });
  }

 private:
  void write_row(int64_t row) const {
    const Out* grad_y = grad_y_.row(row);
    const Out* y = y_.row(row);
    S* grad_x = grad_x_.row(row);
    const auto add_up = [&](int64_t first, int64_t count) {
      A sum = 0;
      for (int64_t begin = first; begin < first + count; begin += kClassBlock<A>) {
        sum += sum_classes<V>(std::min(kClassBlock<A>, first + count - begin),
                              [&](int64_t i, int64_t n) { return V::load(grad_y + begin + i, n, A(0)); });
      }
      return sum;
    };
    const LogSoftmaxGradient<V> gradient{V(plan_.pieces.template sum<A>(add_up, [](A& sum, A next) { sum += next; }))};
    plan_.pieces.parallel([&](int64_t begin, int64_t count) {
      for_each_vector<V>(count, [&](int64_t place, int64_t n) C10_ALWAYS_INLINE_ATTRIBUTE {
        const int64_t i = begin + place;
        gradient.at(V::load(grad_y + i, n, A(0)), V::load(y + i, n, A(-INFINITY))).store(grad_x + i, n);
      });
    });
  }

  void write_by_row(const Chunk& chunk) const {
    Tile<A> grad_tile(chunk.rows), tile(chunk.rows);
    const RowsAhead<const Out> next_grad_y(grad_y_, chunk.first + chunk.rows), next_y(y_, chunk.first + chunk.rows);
    const RowsAhead<S> grad_x(grad_x_, chunk.first);
    alignas(64) A grad_sum[kMaxChunkRows] = {};
    const auto each_block = [&](auto f) {
      for (int64_t begin = 0; begin < p_.classes; begin += tile.max_classes()) {
        f(begin, std::min(tile.max_classes(), p_.classes - begin));
      }
    };
    each_block([&](int64_t begin, int64_t n) {
      grad_tile.load(grad_y_, chunk, begin, n);
      for (int64_t r = 0; r < chunk.rows; r += V::kSize) {
        const V sum = sum_in_parts<V>(n, [&](int64_t c) { return V::load(grad_tile[c] + r); });
        (V::load(grad_sum + r) + sum).store(grad_sum + r);
      }
    });
    each_block([&](int64_t begin, int64_t n) {
      grad_tile.load(grad_y_, chunk, begin, n);
      tile.load(y_, chunk, begin, n);
      for (int64_t r = 0; r < chunk.rows; r += V::kSize) {
        const LogSoftmaxGradient<V> gradient{V::load(grad_sum + r)};
        for (int64_t c = 0; c < n; ++c) {
          gradient.at(V::load(grad_tile[c] + r), V::load(tile[c] + r)).store(tile[c] + r);
          next_grad_y.prefetch(r, begin + c);
          next_y.prefetch(r, begin + c);
          grad_x.prefetch(r, begin + c);
        }
      }
      tile.store(grad_x_, chunk, begin, n);
    });
  }

  const LogSoftmaxBackward& p_;
  const Matrix<const Out> grad_y_;
  const Matrix<const Out> y_;
  const Matrix<S> grad_x_;
  const RowPlan plan_;
};

}  // namespace

int64_t Backend::run(const LogSoftmaxForward& problem) {
  dispatch<c10::Half, c10::BFloat16>(problem,
                                     [&](auto s, auto out) { Forward<decltype(s), decltype(out)>(problem).run(); });
  return kNoBadRow;
}

int64_t Backend::run(const LogSoftmaxBackward& problem) {
  dispatch<c10::Half, c10::BFloat16>(problem,
                                     [&](auto s, auto out) { Backward<decltype(s), decltype(out)>(problem).run(); });
  return kNoBadRow;
}

}  // namespace ce_ext::cpu
