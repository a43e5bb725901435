// A problem for the native tests, its data in any element type, and the formula in double precision.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "attention.h"

namespace mmha {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Which of Extras a case has; kReturned: its weights have a gradient.
enum Feature {
  kCap = 1,
  kSlopes = 2,
  kTable = 4,
  kStart = 8,
  kAdditives = 16,
  kSinks = 32,
  kDropout = 64,
  kReturned = 128
};
constexpr int kAllFeatures = 255;

struct Case {
  Sizes s;
  double density;  // of random visible pairs; < 0 is causal, aligned bottom right
  bool bits;
};

// Numbers as a kernel reads them, and what they are worth.
struct Buffer {
  DType dtype = DType::kFloat32;
  std::vector<float> value;
  std::vector<uint16_t> half;

  void* data() { return dtype == DType::kFloat32 ? (void*)value.data() : (void*)half.data(); }
  void resize(int64_t n) {
    value.resize(n);
    half.resize(dtype == DType::kFloat32 ? 0 : n);
  }
  // Rounds to the dtype, by arithmetic on the number's own exponent.
  void encode() {
    if (dtype == DType::kFloat32) return;
    const int digits = dtype == DType::kBfloat16 ? 8 : 11, lowest = dtype == DType::kBfloat16 ? -126 : -14;
    for (size_t i = 0; i < value.size(); i++) {
      const double x = value[i];
      const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
      const int top = dtype == DType::kBfloat16 ? 0x7f80 : 0x7c00;
      if (std::isnan(x)) {
        half[i] = (uint16_t)(top | 1 << (digits - 2));
        continue;
      }
      if (std::isinf(x)) {
        half[i] = sign | (uint16_t)top;
        continue;
      }
      const int exponent = x == 0 ? lowest : std::max(std::ilogb(x), lowest);
      const double steps = std::nearbyint(std::ldexp(std::fabs(x), digits - 1 - exponent));
      const int bits = ((exponent - lowest) << (digits - 1)) + (int)steps;
      half[i] = sign | (uint16_t)std::min(bits, top);
    }
    decode();
  }
  void decode() {
    if (dtype == DType::kFloat32) return;
    const int digits = dtype == DType::kBfloat16 ? 8 : 11, lowest = dtype == DType::kBfloat16 ? -126 : -14;
    for (size_t i = 0; i < half.size(); i++) {
      const int bits = half[i] & 0x7fff, exponent = bits >> (digits - 1), rest = bits & ((1 << (digits - 1)) - 1);
      const int last = dtype == DType::kBfloat16 ? 255 : 31;
      double x = exponent == 0 ? std::ldexp(rest, lowest - digits + 1)
                               : std::ldexp(rest + (1 << (digits - 1)), exponent - 1 + lowest - digits + 1);
      if (exponent == last) x = rest ? kNan : INFINITY;
      value[i] = (float)(half[i] & 0x8000 ? -x : x);
    }
  }
};

inline Tensor tensor(Buffer& x, int64_t heads, int64_t rows, int64_t width) {
  return {x.data(), heads * rows * width, rows * width, width};
}

struct Problem {
  Case c;
  int features;
  float scale;
  Buffer q, k, v, go, out, residual, dq, dk, dv, weights, dweights;
  std::vector<float> lse, delta, dtable, dslopes, dsinks, dfull, dkeys, dqueries;
  std::vector<uint8_t> dense;  // (Tq, Tk) or (B, Tq, Tk), the same for all heads
  std::vector<float> slopes, table, sinks;
  std::vector<int64_t> start;
  Buffer full, keys, queries;  // additives (B, H, Tq, Tk), (B, 1, 1, Tk), (1, H, Tq, 1)
  std::vector<Additive> additives;
  Extras extras{};

  static constexpr int64_t kWidth = 2 * 13 + 1;

  Problem(const Case& which, DType dtype, int wanted, unsigned seed = 7) : c(which), features(wanted) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::uniform_real_distribution<double> uniform;
    const Sizes& s = c.s;
    scale = 1.0f / std::sqrt((float)s.head_dim);
    auto fill = [&](Buffer& x, DType type, int64_t n) {
      x.dtype = type;
      x.resize(n);
      for (float& f : x.value) f = normal(random);
      x.encode();
    };
    fill(q, dtype, s.batch * s.heads * s.q_len * s.head_dim);
    fill(k, dtype, s.batch * s.kv_heads * s.k_len * s.head_dim);
    fill(v, dtype, s.batch * s.kv_heads * s.k_len * s.value_dim);
    fill(go, dtype, s.batch * s.heads * s.q_len * s.value_dim);
    fill(dweights, dtype, s.batch * s.heads * s.q_len * s.k_len);
    out = residual = go;
    weights = dweights;
    dq = q;
    dk = k;
    dv = v;
    lse.resize(s.batch * s.heads * s.q_len);
    delta = lse;
    dense.resize(s.q_len * s.k_len);
    for (int64_t i = 0; i < s.q_len; i++)
      for (int64_t j = 0; j < s.k_len; j++)
        dense[i * s.k_len + j] = c.density < 0 ? j <= i + s.k_len - s.q_len : uniform(random) < c.density;
    for (int64_t j = 0; j < s.k_len; j++) dense[j] = 0;  // the first row sees nothing
    for (int64_t h = 0; h < s.heads; h++) slopes.push_back(0.01f * (float)(h + 1));
    for (int64_t h = 0; h < s.heads; h++) sinks.push_back(normal(random) * 2);
    for (int64_t i = 0; i < s.heads * kWidth; i++) table.push_back(normal(random));
    for (int64_t b = 0; b < s.batch; b++) start.push_back(s.k_len - s.q_len - 3 * b - 1);
    fill(full, DType::kFloat32, s.batch * s.heads * s.q_len * s.k_len);
    for (float& f : full.value)
      if (uniform(random) < 0.1) f = -INFINITY;
    fill(keys, DType::kBfloat16, s.batch * s.k_len);
    fill(queries, DType::kFloat16, s.heads * s.q_len);
    dtable.resize(table.size());
    dslopes.resize(s.heads);
    dsinks.resize(s.heads);
    dfull.resize(full.value.size());
    dkeys.resize(keys.value.size());
    dqueries.resize(queries.value.size());
  }

  bool has(Feature f) const { return features & f; }

  // Numbers that no visible pair touches are made NaN: a key that nobody sees, and the first query row.
  void poison() {
    const Sizes& s = c.s;
    const int64_t hidden = s.k_len / 2;
    for (int64_t h = 0; h < s.batch * s.heads; h++) {
      for (int64_t x = 0; x < s.head_dim; x++) q.value[h * s.q_len * s.head_dim + x] = kNan;
      for (int64_t x = 0; x < s.value_dim; x++) go.value[h * s.q_len * s.value_dim + x] = kNan;
      for (int64_t i = 0; i < s.q_len; i++) {
        full.value[(h * s.q_len + i) * s.k_len + hidden] = kNan;
        dweights.value[(h * s.q_len + i) * s.k_len + hidden] = kNan;
      }
    }
    for (int64_t i = 0; i < s.q_len; i++) dense[i * s.k_len + hidden] = 0;
    for (int64_t h = 0; h < s.batch * s.kv_heads; h++) {
      for (int64_t x = 0; x < s.head_dim; x++) k.value[(h * s.k_len + hidden) * s.head_dim + x] = kNan;
      for (int64_t x = 0; x < s.value_dim; x++) v.value[(h * s.k_len + hidden) * s.value_dim + x] = INFINITY;
    }
    for (Buffer* x : {&q, &k, &v, &go, &dweights}) x->encode();
  }

  const Extras* view() {
    if (!features) return nullptr;
    const int64_t H = c.s.heads, Tq = c.s.q_len, Tk = c.s.k_len;
    additives = {{full.data(), full.dtype, H * Tq * Tk, Tq * Tk, Tk, 1},
                 {keys.data(), keys.dtype, Tk, 0, 0, 1},
                 {queries.data(), queries.dtype, 0, Tq, 1, 0}};
    extras.softcap = has(kCap) ? 1.7f : 0.0f;
    extras.start = has(kStart) ? start.data() : nullptr;
    extras.slopes = has(kSlopes) ? slopes.data() : nullptr;
    extras.table = has(kTable) ? table.data() : nullptr;
    extras.table_width = kWidth;
    extras.table_stride = kWidth;
    extras.additives = additives.data();
    extras.additive_count = has(kAdditives) ? (int64_t)additives.size() : 0;
    extras.sinks = has(kSinks) ? sinks.data() : nullptr;
    extras.seed = 99;
    extras.threshold = has(kDropout) ? 1288490189u : 0;  // 0.3
    extras.keep_scale = 1.0f / 0.7f;
    return &extras;
  }
};

}  // namespace mmha
