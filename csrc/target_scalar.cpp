// The kernels for scalar. No header of the C++ library may be included here: a shared inline function compiled with
// wide instructions could be the copy that the linker keeps for everyone.
#include "simd/scalar.h"

#include "backward.h"
#include "forward.h"
#include "probe.h"

namespace mmha {

extern const KernelTable kScalarTable;
const KernelTable kScalarTable = {"scalar",       forward_scratch,       backward_scratch, forward_block,
                                  backward_group, backward_keys,         backward_queries, row_dot,
                                  probe_fma,      probe_flops_per_round, probe_read};

}  // namespace mmha
