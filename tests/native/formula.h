// The formula in double precision, pair by pair: what the kernels are judged by.
#pragma once
#include "problem.h"

namespace mmha {

inline uint64_t mix64(uint64_t x) {
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

inline bool is_dropped(const Extras& e, int64_t b, int64_t h, int64_t i, int64_t j) {
  const uint64_t row = mix64(mix64(mix64(mix64(e.seed) ^ b) ^ h) ^ i), key = mix64(mix64(~e.seed) ^ j);
  uint32_t x = (uint32_t)row ^ (uint32_t)key;
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) + ((uint32_t)(row >> 32) ^ (uint32_t)(key >> 32));
  x *= 0x846ca68bu;
  return (x ^ (x >> 16)) < e.threshold;
}

using Doubles = std::vector<double>;

struct Formula {
  Doubles out, lse, weights, dq, dk, dv, dtable, dslopes, dsinks, dfull, dkeys, dqueries;
  Problem& p;
  const Sizes& s;
  const Extras e;
  const bool gradients;
  Doubles score, slope, weight, used, dp;  // one row: scores, derivative of the cap, weights, after dropout

  explicit Formula(Problem& problem, bool with_gradients = true)
      : out(problem.out.value.size()),
        lse(problem.lse.size(), -INFINITY),
        weights(problem.weights.value.size()),
        dq(problem.q.value.size()),
        dk(problem.k.value.size()),
        dv(problem.v.value.size()),
        dtable(problem.table.size()),
        dslopes(problem.c.s.heads),
        dsinks(problem.c.s.heads),
        dfull(problem.full.value.size()),
        dkeys(problem.keys.value.size()),
        dqueries(problem.queries.value.size()),
        p(problem),
        s(problem.c.s),
        e(problem.view() ? *problem.view() : Extras{}),
        gradients(with_gradients) {
    for (Doubles* x : {&score, &slope, &weight, &used, &dp}) x->resize(s.k_len);
    for (int64_t b = 0; b < s.batch; b++)
      for (int64_t h = 0; h < s.heads; h++)
        for (int64_t i = 0; i < s.q_len; i++) row(b, h, i);
  }

  int64_t distance(int64_t b, int64_t i, int64_t j) const { return j - i - (e.start ? e.start[b] : s.k_len - s.q_len); }
  int64_t entry(int64_t h, int64_t distance) const {
    return h * e.table_width + std::min(std::max(e.table_width / 2 + distance, int64_t{0}), e.table_width - 1);
  }
  int64_t pair(int64_t b, int64_t h, int64_t i, int64_t j) const {
    return ((b * s.heads + h) * s.q_len + i) * s.k_len + j;
  }
  bool visible(int64_t b, int64_t h, int64_t i, int64_t j) const {
    const int64_t all = s.q_len * s.k_len, row = (int64_t)p.dense.size() > all ? b : 0;
    return p.dense[row * all + i * s.k_len + j] && !(e.additive_count && p.full.value[pair(b, h, i, j)] == -INFINITY);
  }

  void scores(int64_t b, int64_t h, int64_t i, const float* q, const float* k) {
    for (int64_t j = 0; j < s.k_len; j++) {
      if (!visible(b, h, i, j)) continue;
      double x = 0, t = 0;
      for (int64_t d = 0; d < s.head_dim; d++) x += (double)p.scale * q[d] * k[j * s.head_dim + d];
      if (e.softcap != 0) x = e.softcap * (t = std::tanh(x / e.softcap));
      slope[j] = 1 - t * t;
      const int64_t far = distance(b, i, j);
      if (e.slopes) x -= (double)e.slopes[h] * std::abs(far);
      if (e.table) x += e.table[entry(h, far)];
      if (e.additive_count)
        x += (double)p.full.value[pair(b, h, i, j)] + p.keys.value[b * s.k_len + j] + p.queries.value[h * s.q_len + i];
      score[j] = x;
    }
  }

  void row(int64_t b, int64_t h, int64_t i) {
    const int64_t D = s.head_dim, V = s.value_dim, at = (b * s.heads + h) * s.q_len + i;
    const int64_t kv = b * s.kv_heads + h / (s.heads / s.kv_heads);
    const float *q = &p.q.value[at * D], *go = &p.go.value[at * V];
    const float *k = &p.k.value[kv * s.k_len * D], *v = &p.v.value[kv * s.k_len * V];
    scores(b, h, i, q, k);
    double top = -INFINITY, sum = 0, delta = 0;
    for (int64_t j = 0; j < s.k_len; j++)
      if (visible(b, h, i, j)) top = std::max(top, score[j]);
    if (top == -INFINITY) return;
    if (e.sinks) sum = std::exp(e.sinks[h] - top);
    for (int64_t j = 0; j < s.k_len; j++)
      if (visible(b, h, i, j)) sum += std::exp(score[j] - top);
    lse[at] = top + std::log(sum);
    for (int64_t j = 0; j < s.k_len; j++) {
      if (!visible(b, h, i, j)) continue;
      const double keep = !e.threshold ? 1 : is_dropped(e, b, h, i, j) ? 0 : e.keep_scale;
      weight[j] = std::exp(score[j] - lse[at]);
      if (!weights.empty()) weights[pair(b, h, i, j)] = weight[j];
      used[j] = weight[j] * keep;
      for (int64_t d = 0; d < V; d++) out[at * V + d] += used[j] * v[j * V + d];
      dp[j] = 0;
      for (int64_t d = 0; gradients && d < V; d++) {
        dp[j] += keep * go[d] * v[j * V + d];
        dv[(kv * s.k_len + j) * V + d] += used[j] * go[d];
      }
      if (gradients && p.has(kReturned)) dp[j] += p.dweights.value[pair(b, h, i, j)];
      delta += weight[j] * dp[j];
    }
    if (!gradients) return;
    if (e.sinks) dsinks[h] -= std::exp(e.sinks[h] - lse[at]) * delta;
    for (int64_t j = 0; j < s.k_len; j++) {
      if (!visible(b, h, i, j)) continue;
      const double g = weight[j] * (dp[j] - delta), ds = g * slope[j] * p.scale;
      const int64_t far = distance(b, i, j);
      dslopes[h] -= std::abs(far) * g;
      if (e.table) dtable[entry(h, far)] += g;
      dfull[pair(b, h, i, j)] += g;
      dkeys[b * s.k_len + j] += g;
      dqueries[h * s.q_len + i] += g;
      for (int64_t d = 0; d < D; d++) {
        dq[at * D + d] += ds * k[j * D + d];
        dk[(kv * s.k_len + j) * D + d] += ds * q[d];
      }
    }
  }
};

}  // namespace mmha
