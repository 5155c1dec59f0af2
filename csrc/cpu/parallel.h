// Splits a range over threads: the only place that starts them.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

namespace liif {

// Calls body(begin, end) on disjoint pieces of [0, count), each a multiple of `grain` long but for the last. Pieces are handed
// out as threads become free, so that a slow core does not hold up the rest. The calling thread works too. The first exception of
// any thread is rethrown here after all have stopped.
template <class Body>
void parallel_for(int64_t count, int64_t grain, int threads, Body body) {
  if (count < 1) return;
  const int64_t grains = (count + grain - 1) / grain;
  threads = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(threads, grains)));
  if (threads == 1) return body(int64_t{0}, count);
  // Eight pieces a thread balance well; a piece is long enough to hide the counter.
  const int64_t piece = std::max<int64_t>(1, grains / (8 * static_cast<int64_t>(threads))) * grain;
  std::atomic<int64_t> next{0};
  std::exception_ptr error;
  std::atomic<bool> failed{false};
  auto work = [&] {
    try {
      for (int64_t begin; (begin = next.fetch_add(piece)) < count;) body(begin, std::min(count, begin + piece));
    } catch (...) {
      if (!failed.exchange(true)) error = std::current_exception();
      next.store(count);
    }
  };
  std::vector<std::thread> pool;
  pool.reserve(threads - 1);
  for (int i = 1; i < threads; ++i) {
    try {
      pool.emplace_back(work);
    } catch (const std::exception&) {
      break;  // no more threads to be had: those that run do all the work
    }
  }
  work();
  for (auto& thread : pool) thread.join();
  if (failed) std::rethrow_exception(error);
}

}  // namespace liif
