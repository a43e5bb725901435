// libFuzzer: the bytes choose sizes, strides, a mask in spans or bits, a dtype, biases, threads and an instruction set;
// forward, backward and the gradients of biases are held to the formula in double precision. A mismatch prints the case
// and ends the process, and libFuzzer writes its bytes to a file, which is an argument that repeats it.
#include <fuzzer/FuzzedDataProvider.h>

#include "judge.h"

using namespace mmha;

namespace {

// One size in eight is beside an edge of the kernels' tiles.
int64_t size_of(FuzzedDataProvider& bytes, int64_t small, std::initializer_list<int64_t> edges) {
  const bool edge = bytes.ConsumeIntegralInRange(0, 7) == 7;
  const size_t which = bytes.ConsumeIntegralInRange<size_t>(0, edges.size() - 1);
  return edge ? edges.begin()[which] : bytes.ConsumeIntegralInRange<int64_t>(1, small);
}

Sizes sizes_of(FuzzedDataProvider& bytes) {
  Sizes s{};
  s.batch = bytes.ConsumeIntegralInRange<int64_t>(1, 3);
  s.kv_heads = bytes.ConsumeIntegralInRange<int64_t>(1, 3);
  s.heads = s.kv_heads * bytes.ConsumeIntegralInRange<int64_t>(1, 5);
  s.q_len = size_of(bytes, 17, {31, 32, 33, 63, 64, 65, 97});
  s.k_len = size_of(bytes, 23, {63, 64, 65, 127, 128, 129, 255, 256, 257, 300});
  s.head_dim = size_of(bytes, 33, {63, 64, 65, 96, 128});
  s.value_dim = size_of(bytes, 33, {63, 64, 65, 96, 128});
  if (s.batch * s.heads * s.q_len * s.k_len > 20000) s.batch = 1, s.heads = s.kv_heads;
  return s;
}

// Up to three runs of visible keys a row, one mask or one for each row of the batch.
void draw_mask(FuzzedDataProvider& bytes, Problem& p) {
  const Sizes& s = p.c.s;
  const int64_t rows = s.q_len * (bytes.ConsumeBool() ? s.batch : 1);
  p.dense.assign(rows * s.k_len, 0);
  for (int64_t r = 0; r < rows; r++)
    for (int runs = bytes.ConsumeIntegralInRange(0, 3); runs > 0; runs--) {
      const auto start = bytes.ConsumeIntegralInRange<int64_t>(0, s.k_len);
      const auto stop = bytes.ConsumeIntegralInRange<int64_t>(start, s.k_len);
      std::fill(&p.dense[0] + r * s.k_len + start, &p.dense[0] + r * s.k_len + stop, 1);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzedDataProvider bytes(data, size);
  const std::vector<std::string> isas = available_isas();
  const std::string isa = isas[bytes.ConsumeIntegralInRange<size_t>(0, isas.size() - 1)];
  const auto dtype = (DType)bytes.ConsumeIntegralInRange(0, kDTypes - 1);
  const int features = bytes.ConsumeIntegralInRange(0, kAllFeatures);
  const Sizes s = sizes_of(bytes);
  const double densities[] = {-1, 0, 0.1, 0.5, 0.9, 1};
  const Case c{s, bytes.PickValueInArray(densities), bytes.ConsumeBool()};
  Problem p(c, dtype, features, bytes.ConsumeIntegral<uint8_t>());
  const bool drawn = bytes.ConsumeBool(), poisoned = !drawn && bytes.ConsumeBool();
  Run run{{bytes.ConsumeIntegralInRange<int64_t>(0, 5), bytes.ConsumeBool()},
          bytes.ConsumeIntegralInRange(1, 4),
          bytes.ConsumeBool()};
  if (drawn) draw_mask(bytes, p);
  if (poisoned) p.poison();
  select_isa(isa);
  const std::string name = name_of(c, isa, dtype, features, poisoned) + "gap " + std::to_string(run.layout.gap) +
                           (run.layout.swapped ? " swapped" : "") + (drawn ? " drawn " : " ");
  check(name, p, run);
  if (failures) {
    std::fflush(stdout);
    abort();
  }
  return 0;
}
