// Splits a range over threads: the only place that starts them.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <dlfcn.h>
#endif

namespace liif {

// Whose threads do the work. Between two of PyTorch's operations those of its OpenMP wait for the next by spinning, for
// milliseconds, on the processors that others would need: what is called in turn with them, as in training, asks for them. The
// rest does not, as after a fork they are not there, and OpenMP waits for them for ever.
enum class Pool { own, openmp };

using OpenMp = void (*)(void (*work)(void*), void* argument, unsigned threads, unsigned flags);

// Of the process, by GNU's interface; null where it has none.
inline OpenMp openmp() {
#if defined(__linux__)
  static const auto found = reinterpret_cast<OpenMp>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
  return found;
#else
  return nullptr;
#endif
}

// Calls work() on `threads` at once, this one among them, or on fewer where no more are to be had.
template <class Work>
void on_threads(int threads, Pool pool, Work work) {
  if (pool == Pool::openmp && openmp()) {
    return openmp()([](void* w) { (*static_cast<Work*>(w))(); }, &work, static_cast<unsigned>(threads), 0);
  }
  std::vector<std::thread> others;
  others.reserve(threads - 1);
  for (int i = 1; i < threads; ++i) {
    try {
      others.emplace_back(std::ref(work));
    } catch (const std::exception&) {
      break;
    }
  }
  work();
  for (auto& other : others) other.join();
}

// Calls body(begin, end) on disjoint pieces of [0, count), each a multiple of `grain` long but for the last. Pieces are handed
// out as threads become free, so that a slow core does not hold up the rest. The calling thread works too. The first exception of
// any thread is rethrown here after all have stopped.
template <class Body>
void parallel_for(Pool pool, int64_t count, int64_t grain, int threads, Body body) {
  if (count < 1) return;
  const int64_t grains = (count + grain - 1) / grain, busy = std::min<int64_t>(threads, grains);
  if (busy <= 1) return body(int64_t{0}, count);
  // Eight pieces a thread balance well; a piece is long enough to hide the counter.
  const int64_t piece = std::max<int64_t>(1, grains / (8 * busy)) * grain;
  std::atomic<int64_t> next{0};
  std::exception_ptr error;
  std::atomic<bool> failed{false};
  // OpenMP ends the threads that it is not asked for, so that it is asked for all.
  on_threads(pool == Pool::openmp ? threads : static_cast<int>(busy), pool, [&] {
    try {
      for (int64_t begin; (begin = next.fetch_add(piece)) < count;) body(begin, std::min(count, begin + piece));
    } catch (...) {
      if (!failed.exchange(true)) error = std::current_exception();
      next.store(count);
    }
  });
  if (failed) std::rethrow_exception(error);
}

template <class Body>
void parallel_for(int64_t count, int64_t grain, int threads, Body body) {
  parallel_for(Pool::own, count, grain, threads, body);
}

}  // namespace liif
