// torch keeps a pool of OpenMP threads that spin between parallel regions; a second pool beside it would fight for the
// same cores. We link no OpenMP: the pool's entry point is looked up in the library that torch has already loaded.
// Where there is none (another build of torch, another system), threads are started for the call and joined. So they
// are in the child of a fork: the pool's threads do not exist there, and libgomp would wait for them forever.
#include "parallel.h"

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <cstdlib>
#include <exception>
#include <memory>
#include <new>
#include <thread>
#include <vector>

namespace mmha {
namespace {

using GompParallel = void (*)(void (*)(void*), void*, unsigned, unsigned);

// Atomics and not static locals below: a fork may hit while another thread is inside, and a half-initialised static
// local would lock the child out.
std::atomic<bool> in_child{false};

// Registered at load and not at first use: torch may have used the pool before us.
[[maybe_unused]] const int watching_forks = pthread_atfork(nullptr, nullptr, [] { in_child.store(true); });

GompParallel find_pool() {
  for (const char* name : {"libgomp.so.1", "libgomp.so"}) {
    void* library = dlopen(name, RTLD_LAZY | RTLD_NOLOAD);
    if (!library) continue;
    if (void* entry = dlsym(library, "GOMP_parallel")) return reinterpret_cast<GompParallel>(entry);
  }
  return nullptr;
}

// Looked up when it is needed, until it is there: torch may be imported after us.
GompParallel pool() {
  static constinit std::atomic<GompParallel> known{nullptr};
  if (in_child.load()) return nullptr;
  GompParallel entry = known.load();
  if (!entry) known.store(entry = find_pool());
  return entry;
}

struct Region {
  int64_t count;
  Task task;
  void* context;
  std::atomic<int64_t> next{0};
  std::atomic<int> slots{0};
  std::atomic<bool> failed{false};
  std::exception_ptr error{};  // written by the thread that set `failed`, read when all are done

  // An exception that leaves an OpenMP region or a thread ends the process: it waits here for the caller.
  void run() noexcept {
    const int slot = slots.fetch_add(1);
    try {
      for (int64_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) task(context, i, slot);
    } catch (...) {
      next.store(count);
      if (!failed.exchange(true)) error = std::current_exception();
    }
  }
};

void run_on_threads(Region& region, int threads) {
  std::vector<std::thread> others;
  others.reserve(threads - 1);
  try {
    for (int t = 1; t < threads; t++) others.emplace_back([&region] { region.run(); });
  } catch (...) {  // the system has no more threads to give: those that run share the work
  }
  region.run();
  for (std::thread& t : others) t.join();
}

struct Free {
  void operator()(float* p) const { std::free(p); }
};

}  // namespace

void parallel_tasks(int64_t count, int threads, Task task, void* context) {
  if (count <= 0) return;
  if (threads > count) threads = (int)count;
  Region region{count, task, context};
  if (threads <= 1) {
    region.run();
  } else if (const GompParallel gomp = pool()) {
    gomp([](void* r) { static_cast<Region*>(r)->run(); }, &region, (unsigned)threads, 0);
  } else {
    run_on_threads(region, threads);
  }
  if (region.error) std::rethrow_exception(region.error);
}

float* scratch(int64_t floats) {
  thread_local std::unique_ptr<float, Free> buffer;
  thread_local int64_t size = 0;
  if (floats > size) {
    const int64_t bytes = (floats * (int64_t)sizeof(float) + 63) / 64 * 64;
    buffer.reset();
    size = 0;
    buffer.reset(static_cast<float*>(std::aligned_alloc(64, bytes)));
    if (!buffer) throw std::bad_alloc();
    size = floats;
  }
  return buffer.get();
}

const char* pool_name() { return pool() ? "libgomp" : "std::thread"; }

}  // namespace mmha
