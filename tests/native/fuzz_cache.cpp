// Caches for libFuzzer and AFL++: the bytes choose pages, a ring or beams, each row's length and how it was written, a
// dtype, what is seen, extras, threads and an instruction set; memory, what is read from it and what is attended to are
// held to cache.h and to the formula. A mismatch prints the case and ends the process.
#include <fuzzer/FuzzedDataProvider.h>

#include "caches.h"

using namespace mmha;

namespace {

int64_t among(FuzzedDataProvider& bytes, int64_t least, int64_t most) {
  return bytes.ConsumeIntegralInRange<int64_t>(least, most);
}

// One size in eight is beside an edge of the kernels' tiles, groups or chunks.
int64_t size_of(FuzzedDataProvider& bytes, int64_t small, std::initializer_list<int64_t> edges) {
  const bool edge = among(bytes, 0, 7) == 7;
  const int64_t which = among(bytes, 0, (int64_t)edges.size() - 1);
  return edge ? edges.begin()[which] : among(bytes, 1, small);
}

Sizes sizes_of(FuzzedDataProvider& bytes) {
  Sizes s{};
  s.batch = among(bytes, 1, 4);
  s.kv_heads = among(bytes, 1, 3);
  s.heads = s.kv_heads * among(bytes, 1, 9);
  s.q_len = size_of(bytes, 3, {15, 16, 17, 31, 32, 33});
  s.k_len = size_of(bytes, 40, {63, 64, 65, 255, 256, 257, 300, 1023, 1025});
  s.head_dim = size_of(bytes, 33, {63, 64, 65, 128});
  s.value_dim = size_of(bytes, 33, {63, 64, 65, 128});
  const auto large = [&] { return s.batch * s.heads * s.q_len * s.k_len * (s.head_dim + s.value_dim) > 100000; };
  if (large()) s.batch = std::min<int64_t>(s.batch, 2), s.heads = s.kv_heads;
  if (large()) s.q_len = 1;
  if (large()) s.head_dim = 5, s.value_dim = 17;
  return s;
}

CacheLayout layout_of(FuzzedDataProvider& bytes, const Sizes& s) {
  CacheLayout l{};
  const int kind = bytes.ConsumeIntegralInRange(0, 3);
  if (kind == 1) l.page = size_of(bytes, 19, {32, 64, 128});
  if (kind == 2) {
    l.ring = s.q_len + among(bytes, 0, s.k_len);
    l.window = among(bytes, 1, l.ring - s.q_len + 1);  // the first of the queries still finds its own
    l.sinks = among(bytes, 0, 5);
  }
  l.beam = kind != 1 && bytes.ConsumeBool();
  const char* names[] = {"straight", "page ", "ring ", "straight"};
  l.name = names[kind] +
           (kind == 1   ? std::to_string(l.page)
            : kind == 2 ? std::to_string(l.ring)
                        : "") +
           (l.beam ? " of beams" : "");
  return l;
}

// What the layout shows, without one key in `gaps` at random, one key of all rows and the first query; that key is NaN
// where the type has such.
void draw_mask(FuzzedDataProvider& bytes, const Map& m, DType dtype, Problem& p, std::mt19937& random) {
  const Sizes& s = m.s;
  const int64_t gaps = among(bytes, 0, 3), hidden = among(bytes, -1, s.k_len - 1);
  const bool first = bytes.ConsumeBool();
  p.dense.assign(s.batch * s.q_len * s.k_len, 0);
  for (int64_t r = 0; r < s.batch * s.q_len; r++)
    for (int64_t j = 0; j < s.k_len; j++)
      p.dense[r * s.k_len + j] = m.shows(r / s.q_len, r % s.q_len, j) && j != hidden && !(first && r % s.q_len == 0) &&
                                 !(gaps && random() % (gaps * gaps + 1) == 0);
  for (int64_t row = 0; hidden >= 0 && dtype != DType::kInt8 && row < s.batch * s.kv_heads; row++) {
    p.k.value[(row * s.k_len + hidden) * s.head_dim] = kNan;
    p.v.value[(row * s.k_len + hidden) * s.value_dim + s.value_dim - 1] = row % s.kv_heads ? kNan : INFINITY;
  }
}

// Values of any size that float16 holds, and a token of zeros.
void scale_tokens(FuzzedDataProvider& bytes, const Sizes& s, Problem& p) {
  const float factor = std::ldexp(1.0f, bytes.ConsumeIntegralInRange(-6, 6));
  for (float& x : p.v.value) x *= factor;
  const int64_t empty = among(bytes, -1, s.k_len - 1);
  for (int64_t row = 0; empty >= 0 && row < s.batch * s.kv_heads; row++) {
    std::fill_n(&p.k.value[(row * s.k_len + empty) * s.head_dim], s.head_dim, 0.0f);
    std::fill_n(&p.v.value[(row * s.k_len + empty) * s.value_dim], s.value_dim, 0.0f);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzedDataProvider bytes(data, size);
  const std::vector<std::string> isas = available_isas();
  const std::string isa = isas[bytes.ConsumeIntegralInRange<size_t>(0, isas.size() - 1)];
  const auto dtype = (DType)bytes.ConsumeIntegralInRange(0, kCacheDTypes - 1);
  const int features = bytes.ConsumeIntegralInRange(0, kAllFeatures), threads = bytes.ConsumeIntegralInRange(1, 4);
  const Sizes s = sizes_of(bytes);
  const CacheLayout layout = layout_of(bytes, s);
  std::vector<int64_t> lengths(s.batch, s.k_len);
  if (!(layout.ring && layout.beam))  // where a slot is the same position in all rows
    for (int64_t& length : lengths) length = among(bytes, 0, s.k_len);
  const unsigned seed = bytes.ConsumeIntegral<uint8_t>();
  std::mt19937 random(seed);
  Map m(layout, s, lengths, random);
  for (int64_t b = 0; b < s.batch; b++) m.cut[b] = among(bytes, 0, lengths[b]);
  Problem p({s, 1.0, bytes.ConsumeBool()}, DType::kFloat32, features, seed);
  for (int64_t b = 0; b < s.batch; b++) p.start[b] = lengths[b] - s.q_len;
  scale_tokens(bytes, s, p);
  share_pages(m, p);
  draw_mask(bytes, m, dtype, p, random);
  const char* types[] = {"float32", "bfloat16", "float16", "int8"};
  check_cache(layout.name + " " + types[(int)dtype] + " B" + std::to_string(s.batch) + " H" + std::to_string(s.heads) +
                  "/" + std::to_string(s.kv_heads) + " T" + std::to_string(s.q_len) + "x" + std::to_string(s.k_len) +
                  " D" + std::to_string(s.head_dim) + "/" + std::to_string(s.value_dim) + " features " +
                  std::to_string(features) + " ",
              m, p, dtype, {isa}, threads);
  if (failures) {
    std::fflush(stdout);
    abort();
  }
  return 0;
}
