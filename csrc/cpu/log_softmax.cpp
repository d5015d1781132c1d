// The CPU driver of log-softmax. Both directions take the rows in chunks: a first pass over the classes of a chunk
// finds what belongs to its rows, a second one, while the chunk is in the cache, writes the result.
#include "losses/log_softmax.h"

#include "cpu/backend.h"
#include "cpu/chunks.h"
#include "cpu/lanes.h"
#include "cpu/memory.h"
#include "cpu/row_plan.h"
#include "cpu/softmax_by_class.h"
#include "cpu/softmax_by_row.h"

namespace ce_ext::cpu {
namespace {

template <class A>
class Forward {
  using V = Lanes<A>;
  using Sums = ChunkSums<A, Gaps::kNone, false>;

 public:
  explicit Forward(const LogSoftmaxForward& p)
      : p_(p),
        x_{p.dtype, p.input, p.row_dims, p.input_rows, p.input_class_stride},
        y_{opmath_if(p.widens, p.dtype), p.output, p.row_dims, p.output_rows, p.output_class_stride},
        plan_(RowPlan::make<A>(p.rows, 1, p.classes, {p.input_class_stride, p.output_class_stride})) {}

  void run() const {
    advise_huge_pages(p_.output, p_.rows * p_.classes * size_of(y_.dtype));
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
      if (!plan_.classes_as_lanes) return write_by_row(chunk, tile, rows);
      dispatch_stored<A>(p_, [&](auto s, auto out) {
        write_by_class(x_.template as<decltype(s)>(), y_.template as<decltype(out)>(), chunk, rows);
      });
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
    x_.visit([&]<class S>(const Matrix<const S>& matrix) {
      for (int64_t r = 0; r < chunk.rows; ++r) {
        const RowLogits<A, S, false> row(matrix.row(chunk.first + r), unchanged);
        sums.set(r, softmax_sums<Gaps::kNone, false>(row, plan_.pieces, WeightsByClass<A>{nullptr}, nullptr));
      }
    });
    for (int64_t r = chunk.rows; r < padded_rows; ++r) sums.set(r, SoftmaxSums<A, Gaps::kNone>());
  }

  template <class S, class Out>
  void write_by_class(const Matrix<const S>& inputs, const Matrix<Out>& outputs, const Chunk& chunk,
                      const Rows& rows) const {
    for (int64_t r = 0; r < chunk.rows; ++r) {
      const S* x = inputs.row(chunk.first + r);
      Out* y = outputs.row(chunk.first + r);
      plan_.pieces.parallel([&](int64_t begin, int64_t count) {
        const LogSoftmax<V> row{{V(rows.max[r]), V(rows.log_sum[r])}};
        const S* from = x + begin;
        Out* to = y + begin;
        for_each_vector<V>(count, [&](int64_t i, int64_t n) C10_ALWAYS_INLINE_ATTRIBUTE {
          row.at(V::load(from + i, n, A(0))).store(to + i, n);
        });
      });
    }
  }

  void write_by_row(const Chunk& chunk, Tile<A>& tile, const Rows& rows) const {
    const RowsAhead<A> y(y_, chunk.first);
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
  const StoredMatrix<const A> x_;
  const StoredMatrix<A> y_;
  const RowPlan plan_;
};

template <class A>
class Backward {
  using V = Lanes<A>;

 public:
  explicit Backward(const LogSoftmaxBackward& p)
      : p_(p),
        grad_y_{opmath_if(p.widens, p.dtype), p.grad_output, p.row_dims, p.grad_output_rows,
                p.grad_output_class_stride},
        y_{grad_y_.dtype, p.output, p.row_dims, p.output_rows, p.output_class_stride},
        grad_x_{p.dtype, p.grad_input, p.row_dims, p.grad_input_rows, p.grad_input_class_stride},
        plan_(RowPlan::make<A>(p.rows, 1, p.classes,
                               {p.grad_output_class_stride, p.output_class_stride, p.grad_input_class_stride})) {}

  void run() const {
    advise_huge_pages(p_.grad_input, p_.rows * p_.classes * size_of(p_.dtype));
    plan_.chunks.parallel([&](int64_t, const Chunk& chunk) {
      if (!plan_.classes_as_lanes) return write_by_row(chunk);
      dispatch_stored<A>(p_, [&](auto s, auto out) {
        for (int64_t r = 0; r < chunk.rows; ++r) {
          write_row<decltype(s), decltype(out)>(chunk.first + r);
        }
      });
    });
  }

 private:
  template <class S, class Out>
  void write_row(int64_t row) const {
    const Out* grad_y = grad_y_.template as<Out>().row(row);
    const Out* y = y_.template as<Out>().row(row);
    S* grad_x = grad_x_.template as<S>().row(row);
    const auto add_up = [&](int64_t first, int64_t count) {
      A sum = 0;
      for (int64_t begin = first; begin < first + count; begin += kClassBlock<A>) {
        sum += sum_classes<V>(std::min(kClassBlock<A>, first + count - begin),
                              [&](int64_t i, int64_t n) { return V::load(grad_y + begin + i, n, A(0)); });
      }
      return sum;
    };
    const A grad_sum = plan_.pieces.template sum<A>(add_up, [](A& sum, A next) { sum += next; });
    plan_.pieces.parallel([&](int64_t begin, int64_t count) {
      const LogSoftmaxGradient<V> gradient{V(grad_sum)};
      const Out *grads = grad_y + begin, *outputs = y + begin;
      S* to = grad_x + begin;
      for_each_vector<V>(count, [&](int64_t i, int64_t n) C10_ALWAYS_INLINE_ATTRIBUTE {
        gradient.at(V::load(grads + i, n, A(0)), V::load(outputs + i, n, A(-INFINITY))).store(to + i, n);
      });
    });
  }

  void write_by_row(const Chunk& chunk) const {
    Tile<A> grad_tile(chunk.rows), tile(chunk.rows);
    const RowsAhead<const A> next_grad_y(grad_y_, chunk.first + chunk.rows), next_y(y_, chunk.first + chunk.rows);
    const RowsAhead<A> grad_x(grad_x_, chunk.first);
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
  const StoredMatrix<const A> grad_y_;
  const StoredMatrix<const A> y_;
  const StoredMatrix<A> grad_x_;
  const RowPlan plan_;
};

}  // namespace

int64_t Backend::run(const LogSoftmaxForward& problem) {
  dispatch_opmath(problem.dtype, [&](auto a) { Forward<decltype(a)>(problem).run(); });
  return kNoBadRow;
}

int64_t Backend::run(const LogSoftmaxBackward& problem) {
  dispatch_opmath(problem.dtype, [&](auto a) { Backward<decltype(a)>(problem).run(); });
  return kNoBadRow;
}

}  // namespace ce_ext::cpu
