// Splits a range over threads: the only place that starts them, or calls those of OpenMP.
#pragma once

#include <algorithm>
#include <atomic>
#include <cfenv>
#include <cstdint>
#include <exception>
#include <functional>
#include <thread>
#include <vector>

#include "openmp.h"

namespace liif {

// Calls work() on `threads` of OpenMP's or on `busy` others at once, this one among them, or on fewer where no more are to be
// had.
template <class Work>
void on_threads(int threads, int busy, Work work) {
  std::fenv_t mode;  // what new threads have from this one: whether denormals are zero
  std::fegetenv(&mode);
  auto in_mode = [&] {
    std::fenv_t own;
    std::fegetenv(&own);
    std::fesetenv(&mode);
    work();
    std::fesetenv(&own);
  };
  if (on_openmp(threads, [](void* w) { (*static_cast<decltype(in_mode)*>(w))(); }, &in_mode)) return;
  std::vector<std::thread> others;
  others.reserve(busy - 1);
  for (int i = 1; i < busy; ++i) {
    try {
      others.emplace_back(std::ref(work));
    } catch (const std::exception&) {
      break;
    }
  }
  work();
  for (auto& other : others) other.join();
}

// Has PyTorch's threads handle denormals as this one does, which they began before.
inline void share_mode(int threads) {
  std::fenv_t mode;
  std::fegetenv(&mode);
  on_openmp(threads, [](void* m) { std::fesetenv(static_cast<const std::fenv_t*>(m)); }, &mode);
}

// Calls body(begin, end) on disjoint pieces of [0, count), each a multiple of `grain` long but for the last. Pieces are handed
// out as threads become free, so that a slow core does not hold up the rest. The calling thread works too. The first exception of
// any thread is rethrown here after all have stopped.
template <class Body>
void parallel_for(int64_t count, int64_t grain, int threads, Body body) {
  if (count < 1) return;
  const int64_t grains = (count + grain - 1) / grain, busy = std::min<int64_t>(threads, grains);
  if (busy <= 1) return body(int64_t{0}, count);
  // Eight pieces a thread balance well; a piece is long enough to hide the counter.
  const int64_t piece = std::max<int64_t>(1, grains / (8 * busy)) * grain;
  std::atomic<int64_t> next{0};
  std::exception_ptr error;
  std::atomic<bool> failed{false};
  on_threads(threads, static_cast<int>(busy), [&] {
    try {
      for (int64_t begin; (begin = next.fetch_add(piece)) < count;) body(begin, std::min(count, begin + piece));
    } catch (...) {
      if (!failed.exchange(true)) error = std::current_exception();
      next.store(count);
    }
  });
  if (failed) std::rethrow_exception(error);
}

}  // namespace liif
