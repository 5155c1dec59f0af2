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

// GNU's interface: calls work(argument) on `threads` at once, the calling one among them, or on fewer; `flags` is 0.
using OpenMp = void (*)(void (*work)(void*), void* argument, unsigned threads, unsigned flags);

#if defined(__linux__)

inline std::atomic<bool> forked{false};

// Whether this process has been forked off another that it still is a copy of. True where it cannot be known.
inline bool is_fork() {
  std::ifstream file("/proc/self/stat");
  const std::string line{std::istreambuf_iterator<char>(file), {}};
  // After the name, which may hold anything: state, ppid, pgrp, session, tty_nr, tpgid, flags.
  std::istringstream rest(line.substr(line.rfind(')') + 1));
  std::string skipped;
  for (int i = 0; i < 6; ++i) rest >> skipped;
  constexpr unsigned kForkNoExec = 0x40;  // PF_FORKNOEXEC in Linux' sched.h
  unsigned flags = kForkNoExec;
  rest >> flags;
  return !rest || flags & kForkNoExec;
}

// Null where the process has none, and in forked ones, where it would wait for ever for threads that are not there.
inline OpenMp openmp() {
  static const auto found = [] {
    forked = is_fork();
    pthread_atfork(nullptr, nullptr, [] { forked = true; });
    return reinterpret_cast<OpenMp>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
  }();
  return forked ? nullptr : found;
}

#else

inline OpenMp openmp() { return nullptr; }

#endif

}  // namespace liif
