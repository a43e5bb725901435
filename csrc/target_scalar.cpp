// The kernels for scalar. No header of the C++ library may be included here: a shared inline function compiled with
// wide instructions could be the copy that the linker keeps for everyone.
#include "simd/scalar.h"

#include "table.h"

MMHA_DEFINE_TABLE(kScalarTable, "scalar")
