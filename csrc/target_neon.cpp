// The kernels for neon. No header of the C++ library may be included here: a shared inline function compiled with
// wide instructions could be the copy that the linker keeps for everyone.
#include "simd/neon.h"

#include "table.h"

MMHA_DEFINE_TABLE(kNeonTable, "neon")
