// The kernels for avx2. No header of the C++ library may be included here: a shared inline function compiled with
// wide instructions could be the copy that the linker keeps for everyone.
#include "simd/avx2.h"

#include "table.h"

MMHA_DEFINE_TABLE(kAvx2Table, "avx2")
