// The forward pass of cross entropy: takes the rows in chunks, gathers what every row needs, and does the arithmetic of
// whole rows for all rows of the chunk at once, with rows as lanes.
#pragma once

#include "cpu/cross_entropy_rows.h"
#include "cpu/row_losses.h"
#include "cpu/softmax_by_class.h"

namespace ce_ext::cpu {

// A is the type that logits are computed in, Form tells which of the problem's options are compiled in.
template <class A, class Form>
class CrossEntropyForwardRows {
  using V = Lanes<A>;
  using Sums = ChunkSums<A, Form::kGaps, Form::kReport>;

 public:
  explicit CrossEntropyForwardRows(const CrossEntropyForward& p)
      : p_(p),
        matrix_{p.dtype, p.input, p.row_dims, p.input_rows, p.input_class_stride},
        logits_(p.options.logits),
        loss_(make_loss<A>(p)),
        plan_(RowPlan::make<A>(p.rows, p.groups, p.classes, {p.input_class_stride})) {}

  const Chunks& chunks() const { return plan_.chunks; }

  // Does all of a chunk but to reduce its losses; keeps `saved`, one for each row.
  RowTotals run(const Chunk& chunk, const ChunkTargets<A>& targets, SavedRow<A>* saved) const {
    Sums sums;
    int64_t argmax[kMaxChunkRows];
    alignas(64) A z_target[kMaxChunkRows];
    gather(chunk, targets, sums, z_target, argmax);
    if (p_.report) std::copy(argmax, argmax + chunk.rows, p_.argmax + chunk.first);
    return finish(chunk, targets, sums, z_target, saved);
  }

 private:
  void gather(const Chunk& chunk, const ChunkTargets<A>& targets, Sums& sums, A* z_target, int64_t* argmax) const {
    if (!plan_.classes_as_lanes) {
      WeightsByRow<A> weights(static_cast<const A*>(p_.weight));
      const WantedLogits<A> wanted{p_.report ? argmax : nullptr, targets.target, z_target};
      Tile<A> tile(chunk.rows);
      softmax_sums(tile, matrix_, logits_, chunk, p_.classes, weights, sums, wanted);
    } else {
      matrix_.visit([&](const auto& matrix) { gather_by_class(matrix, chunk, targets, sums, z_target, argmax); });
    }
    if constexpr (Form::kLogitsChange) change(z_target, chunk.rows);
  }

  template <class S>
  void gather_by_class(const Matrix<const S>& matrix, const Chunk& chunk, const ChunkTargets<A>& targets, Sums& sums,
                       A* z_target, int64_t* argmax) const {
    const WeightsByClass<A> weights{static_cast<const A*>(p_.weight)};
    for (int64_t r = 0; r < targets.padded_rows; ++r) {
      const bool has_target = targets.target[r] != kNoTarget;
      z_target[r] = A(0);
      if (!has_target && (!p_.report || r >= chunk.rows)) {
        sums.set(r, SoftmaxSums<A, Form::kGaps, Form::kReport>{A(0)});  // whose statistics are 0
        continue;
      }
      const S* x = matrix.row(chunk.first + r);
      if (has_target) z_target[r] = static_cast<A>(x[targets.target[r]]);
      const RowLogits<A, S, Form::kLogitsChange> row(x, logits_);
      sums.set(r,
               softmax_sums<Form::kGaps, Form::kReport>(row, plan_.pieces, weights, p_.report ? argmax + r : nullptr));
    }
  }

  void change(A* z, int64_t n) const {
    for (int64_t i = 0; i < n; i += V::kSize) logits_(V::load(z + i)).store(z + i);
  }

  RowTotals finish(const Chunk& chunk, const ChunkTargets<A>& targets, const Sums& sums, const A* z_targets,
                   SavedRow<A>* saved) const {
    alignas(64) A losses[kMaxChunkRows];
    V loss_sum, weight_sum;
    for (int64_t r = 0; r < chunk.rows; r += V::kSize) {
      const int64_t n = std::min<int64_t>(V::kSize, chunk.rows - r);
      const auto row_sums = sums.template get<V>(r);
      const V z_target = V::load(z_targets + r);
      const V weight = V::load(targets.weight + r);
      const V sample_weight = V::load(targets.sample_weight + r);
      const SavedRow<V> row = loss_.save(row_sums.finish(), row_sums.gap_sum);
      const V loss = targets.where_there_is_one(r, product(sample_weight, loss_.loss(row, z_target, weight)));
      if (saved) store_rows(saved + r, n, row.stats.max, row.stats.log_sum, row.spread);
      if constexpr (Form::kReport) {
        if (p_.report) {
          auto* report = static_cast<RowReport<A>*>(p_.report) + chunk.first + r;
          const V target_log_prob = -negative_log_likelihood(row.stats, z_target);
          store_rows(report, n, log_sum_exp(row.stats), row_sums.entropy(row.stats), target_log_prob);
          for (int64_t i = 0; i < n; ++i) {
            if (targets.target[r + i] == kNoTarget) report[i].target_log_prob = A(0);
          }
        }
      }
      loss.store(losses + r);
      loss_sum = loss_sum + loss;
      weight_sum = weight_sum + sample_weight * weight;
    }
    store_losses(p_, chunk, losses);
    return {double(loss_sum.sum()), double(weight_sum.sum())};
  }

  const CrossEntropyForward& p_;
  const StoredMatrix<const A> matrix_;
  const Logits<V, Form::kLogitsChange> logits_;
  const CrossEntropy<V> loss_;
  const RowPlan plan_;
};

}  // namespace ce_ext::cpu
