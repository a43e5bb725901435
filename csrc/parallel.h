// Threads: torch's own pool, or none.
#pragma once
#include <cstdint>

namespace mmha {

// Runs task(context, index, slot) for index 0 .. count - 1, each once, handed out in ascending order to at most
// `threads` threads; `slot` tells the threads apart. Tasks must not throw.
using Task = void (*)(void* context, int64_t index, int slot);
void parallel_tasks(int64_t count, int threads, Task task, void* context);

// A 64-byte aligned buffer of this thread, kept between calls.
float* scratch(int64_t floats);

// "libgomp" when torch's OpenMP pool was found, else "std::thread".
const char* pool_name();

}  // namespace mmha
