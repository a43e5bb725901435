// Threads: torch's own pool, or threads for the call.
#pragma once
#include <cstdint>

namespace mmha {

// Runs task(context, index, slot) for index 0 .. count - 1, each once, handed out in ascending order to at most
// `threads` threads; `slot` tells the threads apart. When a task throws, no further ones are handed out, and the first
// exception is thrown here once all threads are done. May be called from several threads at a time, from inside a
// parallel region, from a task, and in the child of a fork.
using Task = void (*)(void* context, int64_t index, int slot);
void parallel_tasks(int64_t count, int threads, Task task, void* context);

// A 64-byte aligned buffer of this thread, kept between calls. Throws std::bad_alloc.
float* scratch(int64_t floats);

// "libgomp" when torch's OpenMP pool is used, else "std::thread".
const char* pool_name();

}  // namespace mmha
