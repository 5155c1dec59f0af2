// Runs chains of convolutions that compute nothing but whether what they read is there: pictures of two buffers whose cells say
// which convolution wrote them last. Prints, for each chain, how many tasks began before the first convolution ended. Built with
// ThreadSanitizer, which reports what a thread reads that another has not handed over, and with OpenMP, whose threads it takes.
#include "cpu/chain.h"

#include <cstdio>
#include <cstdlib>
#include <new>

extern "C" void omp_set_num_threads(int) __attribute__((weak));  // there where OpenMP is linked

using namespace liif;

namespace {

struct Picture {
  int64_t rows, columns, across;
  std::vector<int> cells[2];
};

// False where a neighbour has not been written by the convolution before, or has been by a later one.
bool step(Picture& picture, int at, int64_t row, int64_t tile) {
  const std::vector<int>& from = picture.cells[at % 2];
  for (int64_t y = std::max<int64_t>(0, row - 1); y < std::min(picture.rows, row + 2); ++y) {
    for (int64_t x = std::max<int64_t>(0, tile - 1); x < std::min(picture.across, tile + 2); ++x) {
      if (from[y * picture.across + x] != at) return false;
    }
  }
  picture.cells[(at + 1) % 2][row * picture.across + tile] = at + 1;
  return true;
}

Chain begin(const std::vector<ConvolveParams>& chain, int threads) {
  if (omp_set_num_threads) omp_set_num_threads(threads);
  return Chain(chain, threads);
}

// `window`: rows that are new at a time, of which each convolution makes all but the last four of those before it; 0: all.
// `fewer`: rows that each convolution makes less than the one before it, of all.
int check(int64_t rows, int64_t columns, int channels, const std::vector<bool>& winograd, int threads, int64_t window = 0,
          int64_t fewer = 0) {
  std::vector<ConvolveParams> chain;
  // As biases and outputs, to know the convolutions and their columns by.
  std::vector<float> numbers(winograd.size()), line(columns * channels);
  for (const bool tiles : winograd) {
    ConvolveParams p{};
    p.grid = {window ? 0 : rows, columns, 0}, p.in = p.out = channels, p.kernel = 3;
    p.winograd = tiles ? &chain : nullptr, p.bias = &numbers[chain.size()], p.output = line.data();
    chain.push_back(p);
  }
  Picture picture{rows, columns, (columns + 3) / 4, {}};
  for (auto& cells : picture.cells) cells.assign(rows * picture.across, 0);
  // Counted without handing anything over from thread to thread.
  constexpr auto kLoose = std::memory_order_relaxed;
  std::atomic<int64_t> wrong{0}, first{0}, early{0};
  std::vector<std::atomic<int64_t>> made(winograd.size());
  const int64_t cells = rows * picture.across;
  const auto run = [&](const ConvolveParams& part, int64_t begin, int64_t end) {
    const auto at = static_cast<int>(part.bias - numbers.data());
    const int64_t column = (static_cast<float*>(part.output) - line.data()) / channels, across = tiles_across(part.grid),
                  first_tile = column / 4;
    early.fetch_add(at > 0 && first.load(kLoose) < cells, kLoose);
    const bool tiles = chain[at].winograd;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t line = tiles ? i / across * 4 : i, top = part.first_row + line;
      const int64_t bottom = top + (tiles ? std::min<int64_t>(4, part.grid.rows - line) : 1);
      const int64_t left = first_tile + (tiles ? i % across : 0);
      const int64_t right = tiles ? left + 1 : first_tile + (part.grid.columns + 3) / 4;
      for (int64_t y = top; y < bottom; ++y) {
        for (int64_t x = left; x < right; ++x) {
          wrong.fetch_add(!step(picture, at, y, x), kLoose);
          first.fetch_add(at == 0, kLoose);
          made[at].fetch_add(1, kLoose);
        }
      }
    }
  };
  const auto all = static_cast<int64_t>(chain.size());
  for (int64_t read = window ? window + 4 * all : rows;; read += window) {
    for (int64_t at = 0; at < all; ++at) {
      ConvolveParams& p = chain[at];
      p.first_row += window ? p.grid.rows : 0;
      p.grid.rows = (read < rows ? read - 4 * (at + 1) : rows) - p.first_row - fewer * at;
    }
    begin(chain, threads).go(run);
    if (read >= rows) break;
  }
  const int last = static_cast<int>(winograd.size());
  for (int at = 0; at < last; ++at) wrong += made[at] != (rows - fewer * at) * picture.across;
  std::printf("%lld x %lld, %d channels, %d convolutions, %d threads%s: %lld early, %lld wrong\n", static_cast<long long>(rows),
              static_cast<long long>(columns), channels, last, threads, window ? ", by windows" : "",
              static_cast<long long>(early.load()), static_cast<long long>(wrong.load()));
  return wrong == 0 ? 0 : 1;
}

// Whether all threads end where one has no memory for a task that others wait for.
bool ends_by_errors(int threads) {
  std::vector<ConvolveParams> chain(9);
  for (ConvolveParams& p : chain) p.grid = {270, 480, 0}, p.in = p.out = 64, p.kernel = 3, p.winograd = &chain;
  std::atomic<int> calls{0};
  try {
    begin(chain, threads).go([&](const ConvolveParams&, int64_t, int64_t) {
      if (++calls == 1000) throw std::bad_alloc();
    });
  } catch (const std::bad_alloc&) {
    return true;
  }
  return false;
}

}  // namespace

int main() {
  std::printf("threads of %s\n", omp_set_num_threads && openmp() ? "OpenMP" : "its own");
  const std::vector<bool> tiles(9, true), rows(9, false), head{false, true, true, true, true, true, true, true, false, true};
  int failed = 0;
  for (const int threads : {1, 2, 7}) failed += !ends_by_errors(threads);
  for (const auto& winograd : {tiles, rows, head, std::vector<bool>{true}}) {
    for (const auto& [height, width] : {std::pair{1, 1}, {3, 200}, {5, 7}, {97, 13}, {64, 130}, {40, 1501}, {270, 480}}) {
      for (const int channels : {16, 64}) {
        for (const int threads : {1, 2, 7}) {
          failed += check(height, width, channels, winograd, threads);
          if (height > 200) failed += check(height, width, channels, winograd, threads, 0, 24);
          if (height > 48) failed += check(height, width, channels, winograd, threads, 12);
        }
      }
    }
  }
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
