#include "step.h"

#include <algorithm>
#include <cmath>

namespace mmha {

Plan window_plan(const RowsOf& rows, int64_t left, int64_t right, int64_t window, int64_t sinks) {
  const int64_t k_len = rows.batch ? *std::max_element(rows.lengths, rows.lengths + rows.batch) : 0;
  std::vector<Span> spans;
  std::vector<int64_t> offsets;
  spans.reserve(rows.batch * rows.q_len * (window ? 2 : 1));
  if (window) offsets.push_back(0);
  for (int64_t b = 0; b < rows.batch; b++)
    for (int64_t i = 0; i < rows.q_len; i++) {
      const int64_t p = rows.start[b] + i;
      const int64_t first = std::max<int64_t>(0, p - left);
      const int64_t stop = std::max<int64_t>(0, std::min(rows.lengths[b], p + right + 1));
      const auto add = [&](int64_t from, int64_t to) {
        if (from < to || !window) spans.push_back({(int32_t)std::min(from, to), (int32_t)to});
      };
      if (!window) {
        add(first, stop);
        continue;
      }
      const int64_t recent = std::max({first, p - window + 1, sinks});
      if (recent <= sinks) {
        add(first, stop);
      } else {
        add(first, std::min(stop, sinks));
        add(recent, stop);
      }
      offsets.push_back((int64_t)spans.size());
    }
  return Plan({rows.batch, 1, rows.q_len}, k_len, std::move(offsets), std::move(spans), {});
}

int64_t forgotten_row(const Plan& plan, const RowsOf& rows, const int64_t* kept, int64_t sinks) {
  const RowGrid g = plan.grid();
  for (int64_t b = 0; b < rows.batch; b++) {
    if (kept[b] <= sinks) continue;
    const int64_t first = (g.batch == 1 ? 0 : b) * g.heads * g.q_len;
    for (int64_t r = first; r < first + g.heads * g.q_len; r++)
      for (const Span& s : plan.row(r).spans)
        if (std::max<int64_t>(s.start, sinks) < std::min<int64_t>(s.stop, kept[b])) return b;
  }
  return -1;
}

namespace {

// cos and sin of each pair of one row, in the order in which rotate() takes them.
void fill_angles(const RotaryArgs& r, int64_t b, float* cosine, float* sine) {
  const int64_t part = r.dims / r.ids, pairs = part / 2;
  for (int64_t id = 0; id < r.ids; id++)
    for (int64_t i = 0; i < pairs; i++) {
      const double angle = (double)r.positions[b * r.ids + id] * std::pow(r.base, -2.0 * (double)i / (double)part);
      cosine[id * pairs + i] = (float)std::cos(angle);
      sine[id * pairs + i] = (float)std::sin(angle);
    }
}

void rotate(const RotaryArgs& r, const float* cosine, const float* sine, float* x) {
  const int64_t part = r.dims / r.ids, pairs = part / 2;
  for (int64_t id = 0; id < r.ids; id++)
    for (int64_t i = 0; i < pairs; i++) {
      float* first = x + id * part + (r.interleaved ? 2 * i : i);
      float* second = first + (r.interleaved ? 1 : pairs);
      const float c = cosine[id * pairs + i], s = sine[id * pairs + i], x1 = *first, x2 = *second;
      *first = x1 * c - x2 * s;
      *second = x2 * c + x1 * s;
    }
}

}  // namespace

void split_step(const StepArgs& a) {
  const int64_t D = a.head_dim, Dv = a.value_dim, width = (a.heads + a.kv_heads) * D + a.kv_heads * Dv;
  std::vector<float> angles(a.rotary.dims);
  float *cosine = angles.data(), *sine = cosine + a.rotary.dims / 2;
  for (int64_t b = 0; b < a.batch; b++) {
    const float* x = a.qkv + b * width;
    if (a.rotary.dims) fill_angles(a.rotary, b, cosine, sine);
    const auto take = [&](int64_t from, int64_t count, float* to) {
      for (int64_t d = 0; d < count; d++) to[d] = x[from + d] + (a.bias ? a.bias[from + d] : 0.0f);
    };
    float *q = a.q + b * a.heads * D, *k = a.k + b * a.kv_heads * D;
    take(0, a.heads * D, q);
    take(a.heads * D, a.kv_heads * D, k);
    take((a.heads + a.kv_heads) * D, a.kv_heads * Dv, a.v + b * a.kv_heads * Dv);
    for (int64_t h = 0; a.rotary.dims && h < a.heads; h++) rotate(a.rotary, cosine, sine, q + h * D);
    for (int64_t h = 0; a.rotary.dims && h < a.kv_heads; h++) rotate(a.rotary, cosine, sine, k + h * D);
  }
}

}  // namespace mmha
