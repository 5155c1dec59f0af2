// Convolutions one after another, each beginning while those before are still at work: what one has written the next reads while
// it is in the cache, where whole pictures would go to memory and back. The order in which numbers are made changes none.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "isa.h"
#include "parallel.h"

namespace liif {

// How a convolution is cut into tasks, from the first row to the last: of rows, or of tiles where it is by F(4x4, 3x3).
class Cut {
 public:
  explicit Cut(const ConvolveParams& p) : rows_(p.grid.rows), across_(p.winograd ? tiles_across(p.grid) : 0) {
    const int64_t part = across_ ? kWinogradTiles : 4, pixels = across_ ? 36 * part : part * p.grid.columns * p.kernel * p.kernel;
    // Products that take far longer than to be handed out.
    constexpr int64_t kLeast = 1 << 20;
    products_ = pixels * p.in * p.out;
    length_ = part * (1 + kLeast / std::max<int64_t>(1, products_));
    size_ = across_ ? tiles_in(p.grid) : rows_;
    products_ = products_ * size_ / part;
  }

  int64_t count() const { return (size_ + length_ - 1) / length_; }
  int64_t begin(int64_t task) const { return task * length_; }
  int64_t end(int64_t task) const { return std::min(size_, (task + 1) * length_); }
  int64_t products() const { return products_; }

  // Where the rows end that a task writes to.
  int64_t last_row(int64_t task) const { return across_ ? std::min(rows_, ((end(task) - 1) / across_ + 1) * 4) : end(task); }
  // How many tasks, from the first on, write all rows before this one.
  int64_t until(int64_t row) const {
    const int64_t before = across_ ? (row + 3) / 4 * across_ : row;
    return (before + length_ - 1) / length_;
  }

 private:
  int64_t rows_, across_, length_, size_, products_;
};

class Chain {
 public:
  explicit Chain(const std::vector<ConvolveParams>& convolutions, int threads) {
    int64_t products = 0;
    for (const ConvolveParams& p : convolutions) {
      cuts_.emplace_back(p);
      products += cuts_.back().products();
      done_.emplace_back(new std::atomic<bool>[cuts_.back().count()]());
    }
    // Products that take as long as it does to start a thread.
    constexpr int64_t kLeast = 1 << 21;
    threads_ = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(threads, products / kLeast)));
    plan();
  }

  // Calls run(convolution, begin, end) on `threads`. Where one throws, none goes on.
  template <class Run>
  void go(Run run) {
    std::atomic<int64_t> next{0};
    std::atomic<bool> failed{false};
    parallel_for(threads_, 1, threads_, [&](int64_t, int64_t) {
      std::vector<int64_t> known(cuts_.size(), 0);  // tasks seen to be done, from the first on
      size_t turn = 0;
      for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < total_;) {
        while (i >= turns_[turn].start + turns_[turn].count) ++turn;
        const int at = turns_[turn].convolution;
        const int64_t task = turns_[turn].first + i - turns_[turn].start;
        if (at > 0) {
          // They were handed out before this one, so that whoever does them does not wait for it.
          for (int64_t& k = known[at - 1]; k < needs(at, task);) {
            if (done_[at - 1][k].load(std::memory_order_acquire)) {
              ++k;
            } else if (failed) {
              return;
            } else {
              std::this_thread::yield();
            }
          }
        }
        try {
          run(at, cuts_[at].begin(task), cuts_[at].end(task));
        } catch (...) {
          failed = true;
          next = total_;
          throw;
        }
        done_[at][task].store(true, std::memory_order_release);
      }
    });
  }

 private:
  // Neighbouring tasks of a convolution, handed out one by one.
  struct Turn {
    int convolution;
    int64_t first, count, start;  // the task, how many, and how many there were before
  };

  // How many tasks of the one before have to be done before this: those of the rows that it reads. They have then read what this
  // one may write to.
  int64_t needs(int at, int64_t task) const {
    const Cut& before = cuts_[at - 1];
    return std::min(before.count(), before.until(cuts_[at].last_row(task) + 1));
  }

  void plan() {
    // So many at a time: more of them have more rows at work than the cache holds, and save little where a sixth is left.
    constexpr int kDeep = 6;
    std::vector<int64_t> next(cuts_.size(), 0);
    const int all = static_cast<int>(cuts_.size());
    for (int first = 0; first < all; first += kDeep) {
      const int last = std::min(all, first + kDeep);
      while (next[last - 1] < cuts_[last - 1].count()) {
        for (int at = first; at < last; ++at) {
          const Cut& cut = cuts_[at];
          int64_t end = next[at];
          if (at == first) {
            // Two lines of tiles, and tasks enough that nobody waits for one that is at work.
            end = std::min(cut.count(), end + std::max<int64_t>(cut.until(8), 2 * threads_));
          } else {
            while (end < cut.count() && needs(at, end) <= next[at - 1]) ++end;
          }
          if (end > next[at]) turns_.push_back({at, next[at], end - next[at], total_});
          total_ += end - next[at];
          next[at] = end;
        }
      }
    }
  }

  std::vector<Cut> cuts_;
  std::vector<std::unique_ptr<std::atomic<bool>[]>> done_;
  std::vector<Turn> turns_;
  int64_t total_ = 0;
  int threads_;
};

}  // namespace liif
