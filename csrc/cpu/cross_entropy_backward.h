// The backward pass of cross entropy, chunk by chunk like the forward pass.
#pragma once

#include "cpu/cross_entropy_rows.h"
#include "cpu/memory.h"
#include "cpu/row_losses.h"
#include "cpu/softmax_by_class.h"

namespace ce_ext::cpu {

// CrossEntropyGradient of every row of a chunk.
template <class A, bool kLogitsChange>
struct ChunkGradients {
  Logits<A, kLogitsChange> logits;
  alignas(64) A max[kMaxChunkRows];
  alignas(64) A log_sum[kMaxChunkRows];
  alignas(64) A hard[kMaxChunkRows];
  alignas(64) A soft[kMaxChunkRows];
  alignas(64) A smoothing[kMaxChunkRows];
  alignas(64) A pull[kMaxChunkRows];

  explicit ChunkGradients(const Logits<A, kLogitsChange>& logits_) : logits(logits_) {}

  template <class T>
  CrossEntropyGradient<T, kLogitsChange> get(int64_t r) const {
    const RowStats<T> stats{read<T>(max + r), read<T>(log_sum + r)};
    return {stats,
            read<T>(hard + r),
            read<T>(soft + r),
            read<T>(smoothing + r),
            read<T>(pull + r),
            Logits<T, kLogitsChange>(logits)};
  }
  template <class T>
  void set(int64_t r, const CrossEntropyGradient<T, kLogitsChange>& row) {
    write(max + r, row.stats.max);
    write(log_sum + r, row.stats.log_sum);
    write(hard + r, row.hard);
    write(soft + r, row.soft);
    write(smoothing + r, row.smoothing);
    write(pull + r, row.pull);
  }
};

template <class A, bool kLogitsChange>
class CrossEntropyBackwardRows {
  using V = Lanes<A>;

 public:
  explicit CrossEntropyBackwardRows(const CrossEntropyBackward& p)
      : p_(p),
        matrix_{p.dtype, p.input, p.row_dims, p.input_rows, p.input_class_stride},
        grad_{p.dtype, p.grad_input, p.row_dims, p.grad_input_rows, p.grad_input_class_stride},
        logits_(p.options.logits),
        loss_(make_loss<A>(p)),
        plan_(RowPlan::make<A>(p.rows, 1, p.classes, {p.input_class_stride, p.grad_input_class_stride})) {
    advise_huge_pages(p_.grad_input, p_.rows * p_.classes * size_of(p_.dtype));
  }

  const Chunks& chunks() const { return plan_.chunks; }

  // Writes the gradients of a chunk, of whose rows the forward pass has kept `saved`.
  void run(const Chunk& chunk, const ChunkTargets<A>& targets, const SavedRow<A>* saved) const {
    alignas(64) A target_values[kMaxChunkRows];  // logits, then their gradients
    ChunkGradients<A, kLogitsChange> gradients(logits_);
    std::fill(target_values, target_values + targets.padded_rows, A(0));
    Tile<A> tile(chunk.rows);
    if (!plan_.classes_as_lanes && p_.classes <= tile.max_classes()) {
      tile.load(matrix_, chunk, 0, p_.classes);
      tile.pick(targets.target, chunk.rows, target_values);
    } else {
      read_targets(matrix_, chunk, targets.target, target_values);
    }
    prepare(chunk, targets, saved, target_values, gradients);
    if (plan_.classes_as_lanes) {
      dispatch_stored<A>(p_.dtype, [&](auto s) {
        write_by_class(matrix_.template as<decltype(s)>(), grad_.template as<decltype(s)>(), chunk, targets,
                       target_values, gradients);
      });
    } else {
      write_gradient(tile, matrix_, grad_, chunk, p_.classes, targets.target, targets.all_have_one, target_values,
                     WeightsByRow<A>(class_weight()), gradients);
    }
  }

 private:
  // `target_values` are logits, and become their gradients.
  void prepare(const Chunk& chunk, const ChunkTargets<A>& targets, const SavedRow<A>* saved, A* target_values,
               ChunkGradients<A, kLogitsChange>& gradients) const {
    alignas(64) A scale[kMaxChunkRows];
    read_scale<A>(p_, chunk, targets.sample_weight, scale);
    const Logits<V, kLogitsChange> logits(logits_);
    alignas(64) A spread[kMaxChunkRows];
    for (int64_t r = 0; r < targets.padded_rows; ++r) {
      const SavedRow<A> row = r < chunk.rows ? saved[r] : SavedRow<A>{};
      gradients.max[r] = row.stats.max;
      gradients.log_sum[r] = row.stats.log_sum;
      spread[r] = row.spread;
    }
    for (int64_t r = 0; r < chunk.rows; r += V::kSize) {
      const SavedRow<V> row{{V::load(gradients.max + r), V::load(gradients.log_sum + r)}, V::load(spread + r)};
      const V weight = V::load(targets.weight + r);
      const V x_target = V::load(target_values + r);
      const auto gradient = loss_.gradient(row, logits(x_target), weight, V::load(scale + r), logits);
      gradient.at_target(x_target).store(target_values + r);
      gradients.set(r, gradient);
    }
  }

  template <class S>
  void write_by_class(const Matrix<const S>& matrix, const Matrix<S>& grad, const Chunk& chunk,
                      const ChunkTargets<A>& targets, const A* grad_target,
                      const ChunkGradients<A, kLogitsChange>& gradients) const {
    for (int64_t r = 0; r < chunk.rows; ++r) {
      S* grad_x = grad.row(chunk.first + r);
      if (targets.target[r] == kNoTarget) {
        std::fill(grad_x, grad_x + p_.classes, S(0));
      } else {
        write_gradient(matrix.row(chunk.first + r), grad_x, plan_.pieces, WeightsByClass<A>{class_weight()},
                       gradients.template get<A>(r));
        grad_x[targets.target[r]] = static_cast<S>(grad_target[r]);
      }
    }
  }

  // Only label smoothing pulls every class by its own weight.
  const A* class_weight() const { return p_.options.label_smoothing > 0 ? static_cast<const A*>(p_.weight) : nullptr; }

  const CrossEntropyBackward& p_;
  const StoredMatrix<const A> matrix_;
  const StoredMatrix<A> grad_;
  const Logits<A, kLogitsChange> logits_;
  const CrossEntropy<V> loss_;
  const RowPlan plan_;
};

}  // namespace ce_ext::cpu
