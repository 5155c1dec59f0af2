// The threads of the process's OpenMP, which are PyTorch's.
//
// Between two of PyTorch's operations they wait for the next by spinning, for milliseconds, on the processors that others would
// need; so they are asked to do the work. They also start it sooner.
#pragma once

#include <atomic>

#if defined(__linux__)
#include <dlfcn.h>
#include <pthread.h>

#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#endif

namespace liif {

#if defined(__linux__)

inline std::atomic<bool> forked{false};

// Whether this process is still a copy of another that it was forked off. True where it cannot be known.
inline bool is_fork() {
  std::ifstream file("/proc/self/stat");
  const std::string line{std::istreambuf_iterator<char>(file), {}};
  // After the name, which may hold anything: state, ppid, pgrp, session, tty_nr, tpgid, flags; 0 where a sandbox hides them.
  std::istringstream rest(line.substr(line.rfind(')') + 1));
  std::string skipped;
  for (int i = 0; i < 6; ++i) rest >> skipped;
  constexpr unsigned kForkNoExec = 0x40;  // PF_FORKNOEXEC in Linux' sched.h
  unsigned flags = 0;
  rest >> flags;
  return flags == 0 || flags & kForkNoExec;
}

// By GNU's interface; null where the process has none, and in forks, where it would wait for ever for threads not there.
struct OpenMp {
  void (*parallel)(void (*work)(void*), void* argument, unsigned threads, unsigned flags);
  int (*threads)();  // that it begins in this thread where nothing else is said: PyTorch's
};

inline const OpenMp* openmp() {
  static const OpenMp found = [] {
    forked = is_fork();
    pthread_atfork(nullptr, nullptr, [] { forked = true; });
    return OpenMp{reinterpret_cast<decltype(OpenMp::parallel)>(dlsym(RTLD_DEFAULT, "GOMP_parallel")),
                  reinterpret_cast<decltype(OpenMp::threads)>(dlsym(RTLD_DEFAULT, "omp_get_max_threads"))};
  }();
  return found.parallel && found.threads && !forked ? &found : nullptr;
}

// Calls work(argument) on `threads` of them at once, this one among them, or on fewer where OMP_THREAD_LIMIT has it so. False,
// and nothing is done, where those that it keeps are more or fewer: it would end or begin some, and anew for what comes next.
inline bool on_openmp(int threads, void (*work)(void*), void* argument) {
  const OpenMp* with = openmp();
  if (!with || with->threads() != threads) return false;
  with->parallel(work, argument, static_cast<unsigned>(threads), 0);
  return true;
}

#else

inline const void* openmp() { return nullptr; }
inline bool on_openmp(int, void (*)(void*), void*) { return false; }

#endif

}  // namespace liif
