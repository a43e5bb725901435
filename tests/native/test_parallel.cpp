// Sharing out work: every task once, exceptions, nesting, forks, threads that cannot be had. Run twice, on threads of
// its own and ("test_parallel libgomp") on the pool that torch would have loaded.
#include <dlfcn.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "parallel.h"

using namespace mmha;

namespace {

constexpr int kTimeOut = 30;  // seconds until a hang is a failure (SIGALRM)
int failures = 0;

void expect(bool ok, const std::string& what) {
  if (ok) return;
  std::printf("FAILED %s\n", what.c_str());
  failures++;
}

template <class F>
void run(int64_t count, int threads, F f) {
  parallel_tasks(count, threads, [](void* c, int64_t i, int slot) { (*static_cast<F*>(c))(i, slot); }, &f);
}

struct Counts {
  explicit Counts(int64_t n) : times(n) {}
  bool all(int expected) const {
    for (const std::atomic<int>& t : times)
      if (t != expected) return false;
    return true;
  }
  std::vector<std::atomic<int>> times;
};

void each_once(const std::string& what, int64_t count, int threads) {
  Counts counts(count);
  std::atomic<int> top{0};
  run(count, threads, [&](int64_t i, int slot) {
    counts.times[i]++;
    for (int seen = top; slot > seen && !top.compare_exchange_weak(seen, slot);) continue;
  });
  const std::string name = what + " " + std::to_string(count) + " tasks on " + std::to_string(threads);
  expect(counts.all(1), name + ": each once");
  expect(top < std::max<int64_t>(1, std::min<int64_t>(threads, count)), name + ": slots");
}

void in_order() {
  std::vector<int64_t> order;
  run(7, 1, [&](int64_t i, int) { order.push_back(i); });
  expect(order == std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6}, "ascending on one thread");
}

void nothing_to_do() {
  int ran = 0;
  for (const int64_t count : {0, -3}) run(count, 2, [&](int64_t, int) { ran++; });
  expect(ran == 0, "no task for a count <= 0");
}

// A task that throws ends the handing out, and the caller gets the exception; the next call works.
void exceptions(int threads) {
  const std::string name = "exception on " + std::to_string(threads) + ": ";
  std::atomic<int> ran{0};
  bool caught = false;
  try {
    run(2003, threads, [&](int64_t i, int) {
      ran++;
      if (i == 17) throw std::bad_alloc();
      if (i > 17) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    });
  } catch (const std::bad_alloc&) {
    caught = true;
  }
  expect(caught, name + "the caller gets it");
  expect(ran >= 18 && ran < 1009, name + "later tasks are not begun, " + std::to_string(ran) + " ran");
  int of_all = 0;
  try {
    run(11, threads, [](int64_t i, int) { throw std::runtime_error(std::to_string(i)); });
  } catch (const std::runtime_error&) {
    of_all++;
  }
  expect(of_all == 1, name + "one of many is thrown");
  each_once(name + "then", 101, threads);
}

void nested() {
  Counts counts(5 * 7);
  run(5, 2, [&](int64_t i, int) { run(7, 3, [&](int64_t j, int) { counts.times[i * 7 + j]++; }); });
  expect(counts.all(1), "a task that starts tasks");
  bool caught = false;
  try {
    run(5, 2, [&](int64_t, int) {
      run(7, 3, [&](int64_t j, int) {
        if (j == 3) throw std::bad_alloc();
      });
    });
  } catch (const std::bad_alloc&) {
    caught = true;
  }
  expect(caught, "an exception from a task of a task");
}

void from_many_threads() {
  std::vector<std::thread> callers;
  Counts counts(8 * 31);
  std::atomic<int> caught{0};
  for (int c = 0; c < 8; c++)
    callers.emplace_back([&, c] {
      for (int round = 0; round < 10; round++) run(31, 1 + c % 3, [&](int64_t i, int) { counts.times[c * 31 + i]++; });
      try {
        run(31, 3, [](int64_t, int) { throw std::bad_alloc(); });
      } catch (const std::bad_alloc&) {
        caught++;
      }
    });
  for (std::thread& t : callers) t.join();
  expect(counts.all(10), "eight callers at a time");
  expect(caught == 8, "eight callers, each with its exception");
}

// Two threads that ask for buffers of different sizes must not get the same one.
void scratch_is_own() {
  std::atomic<int> wrong{0};
  run(64, 4, [&](int64_t i, int) {
    float* buffer = scratch(16 + i);
    wrong += reinterpret_cast<uintptr_t>(buffer) % 64 != 0;
    for (int64_t x = 0; x < 16 + i; x++) buffer[x] = (float)i;
    std::this_thread::yield();
    for (int64_t x = 0; x < 16 + i; x++) wrong += buffer[x] != (float)i;
  });
  expect(wrong == 0, "each thread has its own aligned scratch");
}

// Stacks of 2^62 bytes cannot be had: every std::thread fails to start, and the caller works alone. (A size that an
// address can have, 2^46, is one of which qemu writes a table before it is refused, with all of the memory.)
void no_more_threads() {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  size_t usual = 0;
  pthread_attr_getstacksize(&attributes, &usual);
  if (pthread_attr_setstacksize(&attributes, size_t{1} << 62) == 0) {
    pthread_setattr_default_np(&attributes);
    bool refused = false;
    try {
      std::thread([] {}).join();
    } catch (const std::system_error&) {
      refused = true;
    }
    expect(refused, "no thread can be started (else this tests nothing)");
    each_once("no more threads:", 101, 4);
    pthread_attr_setstacksize(&attributes, usual);
    pthread_setattr_default_np(&attributes);
  }
  pthread_attr_destroy(&attributes);
}

// The parent has used its threads; the child has none of them and must neither wait for them nor fail.
[[maybe_unused]] void forked() {
  each_once("parent", 101, 3);
  const pid_t child = fork();
  if (child == 0) {
    failures = 0;
    alarm(kTimeOut / 2);
    expect(std::strcmp(pool_name(), "std::thread") == 0, "a child has no pool");
    each_once("child", 101, 3);
    exceptions(3);
    std::fflush(stdout);
    _exit(failures != 0);
  }
  int status = -1;
  waitpid(child, &status, 0);
  expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child of a fork, status " + std::to_string(status));
  each_once("parent after the fork", 101, 3);
}

// What torch does when a function of ours runs inside its at::parallel_for.
void inside_a_region(void* gomp) {
  static Counts counts(4 * 31);
  static std::atomic<int> members{0};
  const auto parallel = reinterpret_cast<void (*)(void (*)(void*), void*, unsigned, unsigned)>(gomp);
  const auto member = [](void*) {
    const int m = members++;
    run(31, 3, [&](int64_t i, int) { counts.times[m * 31 + i]++; });
  };
  parallel(member, nullptr, 4, 0);
  for (int64_t i = 0; i < members * 31; i++) expect(counts.times[i] == 1, "inside another's parallel region");
}

}  // namespace

int main(int argc, char** argv) {
  alarm(kTimeOut);
  const bool pooled = argc > 1 && std::strcmp(argv[1], "libgomp") == 0;
  void* library = pooled ? dlopen("libgomp.so.1", RTLD_NOW) : nullptr;
  void* gomp = library ? dlsym(library, "GOMP_parallel") : nullptr;
  expect(!pooled || gomp, "libgomp.so.1 on this machine");
  expect(pooled == (std::strcmp(pool_name(), "libgomp") == 0), std::string("the pool asked for, not ") + pool_name());
  nothing_to_do();
  in_order();
  for (const int64_t count : {1, 2, 3, 1009})
    for (const int threads : {-1, 0, 1, 2, 7}) each_once("", count, threads);
  for (const int threads : {1, 2, 5}) exceptions(threads);
  nested();
  from_many_threads();
  scratch_is_own();
  if (gomp) inside_a_region(gomp);
  if (!pooled) no_more_threads();
#ifndef __SANITIZE_THREAD__  // which does not follow a fork
  forked();
#endif
  std::printf("%s: %s\n", pool_name(), failures ? "FAILED" : "all passed");
  return failures ? 1 : 0;
}
