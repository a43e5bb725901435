// A cache without Python: its memory laid out by the words of cache.h, and all that the kernels write, read and attend
// to there, held to that layout and to the formula in double precision over what the cache stores. Memory is as large
// as cache.h says and starts as NaN.
#pragma once
#include "judge.h"

namespace mmha {

constexpr int32_t kNowhere = 1 << 30;  // a block that does not exist

// How a cache keeps its tokens; what is 0 is not there.
struct CacheLayout {
  std::string name;
  int64_t page, ring, window, sinks;
  bool beam;
};

// Rows of numbers as a cache stores them: bytes of one number after the other, what they are worth, and int8's scales.
struct Coded {
  int64_t width, size;
  std::vector<uint8_t> bytes;
  std::vector<float> value, scale;

  Coded(const std::vector<float>& x, int64_t row_width, DType dtype) : width(row_width), value(x) {
    size = dtype == DType::kFloat32 ? 4 : dtype == DType::kInt8 ? 1 : 2;
    bytes.resize(x.size() * size);
    if (dtype != DType::kInt8) {
      Buffer b;
      b.dtype = dtype;
      b.value = x;
      b.half.resize(x.size());
      b.encode();
      std::memcpy(bytes.data(), b.data(), bytes.size());
      value = b.value;
      return;
    }
    for (size_t from = 0; from < x.size(); from += width) {
      float most = 0;
      for (int64_t d = 0; d < width; d++) most = std::max(most, std::fabs(x[from + d]));
      scale.push_back(most / 127.0f);
      for (int64_t d = 0; d < width; d++) {
        const auto whole = (int8_t)(most > 0 ? std::nearbyint(x[from + d] / scale.back()) : 0.0f);
        bytes[from + d] = (uint8_t)whole;
        value[from + d] = whole * scale.back();
      }
    }
  }
};

// How the tokens of each row of the batch lie: row b has length[b] of them, of which cut[b] are written first.
struct Map {
  CacheLayout layout;
  Sizes s;
  std::vector<int64_t> length, cut;
  int64_t blocks, slots, groups, width = 0;
  std::vector<int32_t> table, beam;

  Map(const CacheLayout& l, const Sizes& sizes, const std::vector<int64_t>& lengths, std::mt19937& random)
      : layout(l), s(sizes), length(lengths), blocks(s.batch) {
    for (int64_t b = 0; b < s.batch; b++) cut.push_back(length[b] * (b + 1) / (b + 3));
    slots = s.k_len + random() % 3;
    if (l.ring) slots = l.sinks + l.ring;
    if (l.page) make_table(random);
    groups = (slots + 15) / 16;
    if (l.beam) make_beam(random);
  }

  // Pages in any order, the first of them shared by all rows that have it whole.
  void make_table(std::mt19937& random) {
    slots = layout.page;
    width = (s.k_len + slots - 1) / slots + 1;
    blocks = s.batch * width + 2;
    std::vector<int32_t> any(blocks);
    for (int64_t i = 0; i < blocks; i++) any[i] = (int32_t)i;
    for (int64_t i = blocks - 1; i > 0; i--) std::swap(any[i], any[random() % (i + 1)]);
    table.resize(s.batch * width, kNowhere);
    for (int64_t b = 0; b < s.batch; b++)
      for (int64_t i = 0; i * slots < length[b]; i++)
        table[b * width + i] = any[i || length[b] < slots ? b * width + i : 0];
  }

  // Runs of slots that stand in some row that has written them.
  void make_beam(std::mt19937& random) {
    beam.resize(s.batch * slots, kNowhere);
    for (int64_t b = 0; b < s.batch; b++)
      for (int64_t slot = 0, row = b; slot < slots; slot++) {
        if (random() % 8 == 0) row = random() % s.batch;
        if (slot < length[b]) beam[b * slots + slot] = (int32_t)(slot < length[row] ? row : b);
      }
  }

  int64_t slot(int64_t j) const {
    if (layout.page) return j % slots;
    return !layout.ring || j < layout.sinks ? j : layout.sinks + (j - layout.sinks) % layout.ring;
  }
  int64_t block(int64_t b, int64_t j) const { return layout.page ? table[b * width + j / slots] : b; }
  // The row whose token row b reads at j.
  int64_t source(int64_t b, int64_t j) const { return layout.beam ? beam[b * slots + slot(j)] : b; }
  bool held(int64_t b, int64_t j) const {
    return j < length[b] && (!layout.ring || j < layout.sinks || j >= length[b] - layout.ring);
  }
  bool shows(int64_t b, int64_t i, int64_t j) const {
    const int64_t p = length[b] - s.q_len + i;
    return j < length[b] && j <= p && (!layout.ring || j > p - layout.window || j < layout.sinks);
  }
};

// The memory of a cache, every bit set: NaN, where there are such.
struct Store {
  std::vector<uint8_t> keys, values;
  std::vector<float> key_scales, value_scales;
  CacheView view{};

  Store(const Map& m, DType dtype, int64_t size) {
    const int64_t heads = m.blocks * m.s.kv_heads;
    keys.resize(heads * m.groups * m.s.head_dim * 16 * size, 0xff);
    values.resize(heads * m.slots * m.s.value_dim * size, 0xff);
    if (dtype == DType::kInt8) {
      key_scales.resize(heads * m.groups * 16, kNan);
      value_scales = key_scales;
    }
    view = {dtype,
            keys.data(),
            values.data(),
            key_scales.empty() ? nullptr : key_scales.data(),
            value_scales.empty() ? nullptr : value_scales.data(),
            m.s.kv_heads,
            m.s.head_dim,
            m.s.value_dim,
            m.slots,
            m.groups,
            m.layout.ring,
            m.layout.sinks,
            m.table.empty() ? nullptr : m.table.data(),
            m.width,
            nullptr};
  }

  // Row `from` of k and v, to a slot of a block, by the words of cache.h.
  void put(const Map& m, int64_t head, int64_t slot, const Coded& k, const Coded& v, int64_t from) {
    for (int64_t d = 0; d < k.width; d++)
      std::memcpy(&keys[(((head * m.groups + slot / 16) * k.width + d) * 16 + slot % 16) * k.size],
                  &k.bytes[(from * k.width + d) * k.size], k.size);
    std::memcpy(&values[(head * m.slots + slot) * v.width * v.size], &v.bytes[from * v.width * v.size],
                v.width * v.size);
    if (k.scale.empty()) return;
    key_scales[head * m.groups * 16 + slot] = k.scale[from];
    value_scales[head * m.groups * 16 + slot] = v.scale[from];
  }
};

inline bool same_store(const Store& a, const Store& b) {
  const auto same = [](const auto& x, const auto& y) {
    return x.size() == y.size() && (x.empty() || !std::memcmp(x.data(), y.data(), x.size() * sizeof x[0]));
  };
  return same(a.keys, b.keys) && same(a.values, b.values) && same(a.key_scales, b.key_scales) &&
         same(a.value_scales, b.value_scales);
}

// Writes all tokens in two calls.
inline void write_all(const Store& to, const Map& m, const Problem& p, int threads) {
  const Sizes& s = m.s;
  for (const bool second : {false, true}) {
    std::vector<int64_t> first, count;
    std::vector<float> k(p.k.value.size(), kNan), v(p.v.value.size(), kNan);
    for (int64_t b = 0; b < s.batch; b++) {
      first.push_back(second ? m.cut[b] : 0);
      count.push_back(second ? m.length[b] - m.cut[b] : m.cut[b]);
      for (int64_t row = b * s.kv_heads; row < (b + 1) * s.kv_heads; row++) {
        const auto copy = [&](const std::vector<float>& from, std::vector<float>& into, int64_t width) {
          std::copy_n(from.data() + (row * s.k_len + first[b]) * width, count[b] * width,
                      into.data() + row * s.k_len * width);
        };
        copy(p.k.value, k, s.head_dim);
        copy(p.v.value, v, s.value_dim);
      }
    }
    cache_write(to.view, {s.batch, s.k_len, first.data(), count.data(), k.data(), v.data()}, threads);
  }
}

// What the cache holds is what p.k and p.v hold by now.
inline void check_read(const std::string& name, const Store& from, const Map& m, const Problem& p) {
  const Sizes& s = m.s;
  for (int64_t start = 0; start < s.k_len;
       start += m.layout.ring ? 1 : s.k_len) {  // a ring's overwritten tokens are skipped
    std::vector<int64_t> first(s.batch, start), count;
    for (int64_t b = 0; b < s.batch; b++) count.push_back(m.layout.ring ? m.held(b, start) : m.length[b]);
    const int64_t tokens = m.layout.ring ? 1 : s.k_len;
    std::vector<float> k(s.batch * s.kv_heads * tokens * s.head_dim);
    std::vector<float> v(s.batch * s.kv_heads * tokens * s.value_dim);
    cache_read(from.view, {s.batch, tokens, first.data(), count.data(), k.data(), v.data()}, 2);
    for (int64_t row = 0; row < s.batch * s.kv_heads; row++) {
      const int64_t n = count[row / s.kv_heads], at = row * s.k_len + start;
      const auto same = [&](const std::vector<float>& got, const std::vector<float>& want, int64_t width) {
        same_bits(name + "read", got.data() + row * tokens * width, want.data() + at * width, n * width * 4);
      };
      same(k, p.k.value, s.head_dim);
      same(v, p.v.value, s.value_dim);
    }
  }
}

inline void attend(Problem& p, const Plan& plan, const CacheView* cache, int threads) {
  const Sizes& s = p.c.s;
  p.out.value.assign(p.out.value.size(), kNan);
  p.lse.assign(p.lse.size(), kNan);
  ForwardArgs args{};
  args.size = s;
  args.q = tensor(p.q, s.heads, s.q_len, s.head_dim);
  args.out = tensor(p.out, s.heads, s.q_len, s.value_dim);
  args.lse = p.lse.data();
  args.scale = p.scale;
  args.extras = p.view();
  args.cache = cache;
  if (cache) return cached_forward(args, plan, threads);
  args.k = tensor(p.k, s.kv_heads, s.k_len, s.head_dim);
  args.v = tensor(p.v, s.kv_heads, s.k_len, s.value_dim);
  forward(args, plan, DType::kFloat32, threads);
}

// Rows that share a page have the same tokens there.
inline void share_pages(const Map& m, Problem& p) {
  const Sizes& s = m.s;
  for (int64_t b = 1; m.layout.page && b < s.batch; b++)
    for (int64_t kv = 0; kv < s.kv_heads; kv++)
      for (int64_t j = 0; j < std::min(m.slots, s.k_len); j++) {
        const int64_t from = kv * s.k_len + j, to = (b * s.kv_heads + kv) * s.k_len + j;
        std::copy_n(p.k.value.data() + from * s.head_dim, s.head_dim, p.k.value.data() + to * s.head_dim);
        std::copy_n(p.v.value.data() + from * s.value_dim, s.value_dim, p.v.value.data() + to * s.value_dim);
      }
}

// Writing, reading and attention over a cache of this type, on one thread and on several, by each of the instruction
// sets; p.dense is what is seen, of what m.shows.
inline void check_cache(const std::string& name, const Map& m, Problem p, DType dtype,
                        const std::vector<std::string>& isas, int threads = 2) {
  const Sizes& s = m.s;
  const Coded k(p.k.value, s.head_dim, dtype), v(p.v.value, s.value_dim, dtype);
  const Problem written = p;
  Store image(m, dtype, k.size);
  for (int64_t b = 0; b < s.batch; b++)
    for (int64_t kv = 0; kv < s.kv_heads; kv++)
      for (int64_t j = 0; j < m.length[b]; j++) {
        image.put(m, m.block(b, j) * s.kv_heads + kv, m.slot(j), k, v, (b * s.kv_heads + kv) * s.k_len + j);
        const int64_t to = (b * s.kv_heads + kv) * s.k_len + j;
        const int64_t from = m.held(b, j) ? (m.source(b, j) * s.kv_heads + kv) * s.k_len + j : to;
        std::copy_n(k.value.data() + from * s.head_dim, s.head_dim, p.k.value.data() + to * s.head_dim);
        std::copy_n(v.value.data() + from * s.value_dim, s.value_dim, p.v.value.data() + to * s.value_dim);
      }
  const Plan plan = plan_of(p);
  const Formula want(p, false);
  for (const std::string& isa : isas) {
    select_isa(isa);
    const std::string what = isa + " " + name;
    Store store(m, dtype, k.size);
    write_all(store, m, written, m.layout.page ? 1 : threads);  // shared pages: one after the other
    expect(same_store(store, image), what + "memory differs from what cache.h says");
    if (m.layout.beam) store.view.beam = m.beam.data();
    check_read(what, store, m, p);
    attend(p, plan, &store.view, 1);
    compare(what + "out", p.out.value, want.out, 2e-6, 5e-6);
    compare(what + "lse", p.lse, want.lse, 2e-6, 5e-6);
    const auto out = p.out.value, lse = p.lse;
    attend(p, plan, &store.view, threads);
    same_bits(what + "out of several threads", p.out.value, out);
    same_bits(what + "lse of several threads", p.lse, lse);
    expect(same_store(store, image), what + "memory changed");
    if (dtype == DType::kInt8) continue;
    attend(p, plan, nullptr, 1);
    same_bits(what + "out of rows in memory", p.out.value, out);
    same_bits(what + "lse of rows in memory", p.lse, lse);
  }
}

}  // namespace mmha
