// The native core without Python: every instruction set of this machine against the formula in double precision, over
// element types, head sizes, masks, groups, extras and poisoned numbers. Built plain, under sanitizers, and for
// emulated targets (run.sh).
#include "judge.h"

using namespace mmha;

// With the argument "brief", for slow builds: all features or none, poisoned, without the dtype that differs least.
int main(int argc, char** argv) {
  const bool brief = argc > 1 && std::string(argv[1]) == "brief";
  const std::vector<Case> cases = {
      {{1, 1, 1, 1, 1, 1, 1}, 1.0, false},       {{2, 3, 3, 37, 41, 5, 3}, 0.5, false},
      {{1, 4, 2, 67, 131, 64, 64}, -1, false},   {{1, 1, 1, 131, 601, 33, 7}, -1, false},
      {{1, 2, 1, 97, 523, 16, 129}, 0.1, true},  {{1, 1, 1, 261, 263, 31, 17}, 0.9, true},
      {{1, 1, 1, 129, 300, 512, 40}, -1, false}, {{2, 2, 1, 100, 100, 128, 128}, 0.0, false},
      {{1, 1, 1, 71, 1025, 8, 9}, 0.0001, true}, {{1, 1, 1, 9, 3001, 24, 48}, -1, false},
      {{1, 2, 2, 40, 2100, 16, 16}, 0.02, true}, {{1, 8, 2, 2, 2500, 24, 40}, -1, false},
      {{2, 6, 2, 1, 71, 20, 12}, 0.7, true},
  };
  const int features[] = {0,      kCap,     kSlopes | kTable, kTable | kStart, kAdditives,
                          kSinks, kDropout, kReturned,        kAllFeatures};
  int count = 0;
  for (const std::string& isa : available_isas()) {
    select_isa(isa);
    for (const Case& c : cases)
      for (const DType dtype : {DType::kFloat32, DType::kBfloat16, DType::kFloat16})
        for (const int f : features)
          for (const bool poisoned : {false, true}) {
            // Every feature on the small problems; on the others none, and all of them at once.
            if (f && f != kAllFeatures && (brief || c.s.q_len * c.s.k_len > 10000)) continue;
            if (brief && (!poisoned || dtype == DType::kFloat16)) continue;
            Problem p(c, dtype, f);
            if (poisoned) p.poison();
            check(name_of(c, isa, dtype, f, poisoned), p, {});
            count++;
          }
    std::printf("%s: %d cases so far\n", isa.c_str(), count);
  }
  std::printf("%d passed, %d failed\n", count - std::min(count, failures), failures);
  return failures ? 1 : 0;
}
