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

inline int64_t bytes_of(Type type) { return type == Type::bf16 ? 2 : 4; }

// Columns [left, right) of a convolution, a convolution themselves, and how they are cut into tasks, from the first row to the
// last: of rows, or of tiles where it is by F(4x4, 3x3).
class Part {
 public:
  Part(const ConvolveParams& whole, int64_t left, int64_t right) : params_(whole), left_(left), right_(right) {
    ConvolveParams& p = params_;
    const auto from = [&](const void* picture, int64_t channels) {
      return picture ? static_cast<const char*>(picture) + left * channels * bytes_of(p.type) : nullptr;
    };
    p.input = from(p.input, p.in), p.skip = from(p.skip, kSkip), p.add = from(p.add, p.out);
    p.output = const_cast<char*>(from(p.output, p.out));
    p.grid.columns = right - left;
    across_ = p.winograd ? tiles_across(p.grid) : 0;
    const int64_t step = across_ ? kWinogradTiles : 4, pixels = across_ ? 36 * step : step * p.grid.columns * p.kernel * p.kernel;
    // Products that take far longer than to be handed out.
    constexpr int64_t kLeast = 1 << 20;
    products_ = pixels * p.in * p.out;
    length_ = step * (1 + kLeast / std::max<int64_t>(1, products_));
    size_ = across_ ? tiles_in(p.grid) : p.grid.rows;
    products_ = products_ * size_ / step;
    done_.reset(new std::atomic<bool>[count()]());
  }

  const ConvolveParams& params() const { return params_; }
  int64_t count() const { return (size_ + length_ - 1) / length_; }
  int64_t begin(int64_t task) const { return task * length_; }
  int64_t end(int64_t task) const { return std::min(size_, (task + 1) * length_); }
  int64_t products() const { return products_; }
  std::atomic<bool>& done(int64_t task) const { return done_[task]; }

  // Whether this reads what the other writes to, one of the convolution before; the other then reads what this may write to.
  bool reads(const Part& before) const { return before.left_ <= right_ && left_ <= before.right_; }
  // How many tasks of `before` have to be done before this: those of the rows that it reads.
  int64_t needs(const Part& before, int64_t task) const {
    const int64_t rows = params_.grid.rows, last = across_ ? ((end(task) - 1) / across_ + 1) * 4 : end(task);
    const int64_t row = params_.first_row + std::min(rows, last) + 1 - before.params_.first_row;
    return std::min(before.count(), before.until(std::max<int64_t>(0, row)));
  }
  // How many tasks, from the first on, write all rows before this one.
  int64_t until(int64_t row) const {
    const int64_t before = across_ ? (row + 3) / 4 * across_ : row;
    return (before + length_ - 1) / length_;
  }

 private:
  ConvolveParams params_;
  int64_t left_, right_, across_, length_, size_, products_;
  std::unique_ptr<std::atomic<bool>[]> done_;
};

class Chain {
 public:
  Chain(const std::vector<ConvolveParams>& convolutions, int threads) : threads_(threads) {
    const int all = static_cast<int>(convolutions.size());
    for (int first = 0; first < all; first += kDeep) cut(convolutions, first, std::min(all, first + kDeep));
    int64_t products = 0;
    for (const Part& part : parts_) products += part.products();
    // Products that take as long as it does to start a thread.
    constexpr int64_t kLeast = 1 << 21;
    busy_ = std::min<int64_t>(threads, std::max<int64_t>(1, products / kLeast));
    plan(all);
  }

  // Calls run(part, begin, end) on `threads`, the part as ConvolveParams. Where one throws, none goes on.
  template <class Run>
  void go(Run run) {
    std::atomic<int64_t> next{0};
    std::atomic<bool> failed{false};
    parallel_for(busy_, 1, threads_, [&](int64_t, int64_t) {
      std::vector<int64_t> known(parts_.size(), 0);  // tasks seen to be done, from the first on
      size_t turn = 0;
      for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < total_;) {
        while (i >= turns_[turn].start + turns_[turn].count) ++turn;
        const int at = turns_[turn].part;
        const Part& part = parts_[at];
        const int64_t task = turns_[turn].first + i - turns_[turn].start;
        // They were handed out before this one, so that whoever does them does not wait for it.
        for (const int before : before_[at]) {
          for (int64_t& k = known[before]; k < part.needs(parts_[before], task);) {
            if (parts_[before].done(k).load(std::memory_order_acquire)) {
              ++k;
            } else if (failed) {
              return;
            } else {
              std::this_thread::yield();
            }
          }
        }
        try {
          run(part.params(), part.begin(task), part.end(task));
        } catch (...) {
          failed = true;
          next = total_;
          throw;
        }
        part.done(task).store(true, std::memory_order_release);
      }
    });
  }

 private:
  // So many convolutions at a time: more of them have more rows at work than the cache holds, and save little where a sixth is
  // left.
  static constexpr int kDeep = 6;

  // Neighbouring tasks of a part, handed out one by one.
  struct Turn {
    int part;
    int64_t first, count, start;  // the task, how many, and how many there were before
  };

  // Into strips that are worked on one after another, so narrow that the cache holds the rows at work. Each ends further to the
  // left than those of the convolution before, so that nothing it reads is of the next strip.
  void cut(const std::vector<ConvolveParams>& convolutions, int first, int last) {
    constexpr int64_t kRowBytes = 3 << 14, kLeast = 256, kSkew = 16;
    static_assert((kDeep + 1) * kSkew < kLeast / 2, "no strip is empty");
    const PixelGrid& grid = convolutions[first].grid;
    int64_t pixel = 1;  // bytes
    for (int at = first; at < last; ++at) {
      const ConvolveParams& p = convolutions[at];
      pixel = std::max(pixel, std::max(p.in, p.out) * bytes_of(p.type));
    }
    const int64_t widest = std::max(kLeast, kRowBytes / pixel);
    const bool whole = grid.picture_rows || last - first == 1;  // one alone has nothing to find in the cache
    const int64_t strips = whole ? 1 : std::max<int64_t>(1, (grid.columns + widest / 2) / widest);
    for (int at = first; at < last; ++at) {
      int64_t left = 0;
      for (int64_t strip = 1; strip <= strips; ++strip) {
        const int64_t even = strip * grid.columns / strips / kSkew * kSkew - (at - first) * kSkew;
        const int64_t right = strip < strips ? even : grid.columns;
        parts_.emplace_back(convolutions[at], left, right);
        convolution_.push_back(at);
        left = right;
      }
    }
    strips_.push_back(static_cast<int>(strips));
  }

  void plan(int all) {
    const int count = static_cast<int>(parts_.size());
    before_.resize(count);
    for (int i = 0; i < count; ++i) {
      const int before = convolution_[i] - 1;
      for (int j = i - 1; j >= 0 && convolution_[j] >= before; --j) {
        if (convolution_[j] == before && parts_[i].reads(parts_[j])) before_[i].push_back(j);
      }
    }
    std::vector<int64_t> next(count, 0);
    const auto ready = [&](int i) {
      return std::all_of(before_[i].begin(), before_[i].end(),
                         [&](int j) { return parts_[i].needs(parts_[j], next[i]) <= next[j]; });
    };
    int group = 0;  // its first part
    for (int first = 0; first < all; first += kDeep) {
      const int deep = std::min(all - first, kDeep), strips = strips_[first / kDeep];
      for (int strip = 0; strip < strips; ++strip) {
        const int top = group + strip, bottom = top + (deep - 1) * strips;
        for (int64_t before = -1; before != total_;) {  // until a round hands out nothing
          before = total_;
          for (int i = top; i <= bottom; i += strips) {
            const Part& part = parts_[i];
            const int64_t begin = next[i];
            if (i == top) {
              // Two lines of tiles, and tasks enough that nobody waits for one that is at work.
              next[i] = std::min(part.count(), begin + std::max<int64_t>(part.until(8), 2 * busy_));
            } else {
              while (next[i] < part.count() && ready(i)) ++next[i];
            }
            if (next[i] > begin) turns_.push_back({i, begin, next[i] - begin, total_});
            total_ += next[i] - begin;
          }
        }
      }
      group += deep * strips;
    }
  }

  std::vector<Part> parts_;
  std::vector<int> convolution_;          // of each part
  std::vector<std::vector<int>> before_;  // parts that a part waits for
  std::vector<int> strips_;               // of each group of convolutions at work at once
  std::vector<Turn> turns_;
  int64_t total_ = 0;
  int threads_;
  int64_t busy_;  // of them
};

}  // namespace liif
