// Which instruction set runs.
#pragma once
#include <string>
#include <vector>

#include "attention.h"

namespace mmha {

// The best one that this CPU and operating system support, or the one MMHA_ISA names.
const KernelTable& kernels();
// All that this build holds, best first; and those that can run here.
std::vector<std::string> compiled_isas();
std::vector<std::string> available_isas();
// Makes `name` the one in use and returns the previous; throws std::invalid_argument when it can't run here.
std::string select_isa(const std::string& name);

}  // namespace mmha
