// The kernels for avx512bf16. No header of the C++ library may be included here: a shared inline function compiled with
// wide instructions could be the copy that the linker keeps for everyone.
#define MMHA_BF16_PAIRS
#include "simd/avx512.h"

#include "table.h"

MMHA_DEFINE_TABLE(kAvx512Bf16Table, "avx512bf16")
