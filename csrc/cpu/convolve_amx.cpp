// AMX for convolutions in bf16, AVX-512-BF16 for what is done to their sums; f32 work goes to AVX-512.
#include <cstring>
#include <vector>

#include "isa.h"
#include "tiles_amx.h"

namespace liif {
namespace {

using V = Floats;
using T = Bf16Pairs;

// A type of this file's own, so that a vector of it is too: the linker could keep this copy of uint16_t's for all processors.
struct Stored {
  uint16_t bits;
};

// Pixels of a row whose sums are done, and where their first output, what is added to it and their image lie.
struct Block {
  int count;
  const float* sums;
  uint16_t* out;
  const uint16_t *add, *skip;
};

// The image, addition and ReLU for those of a block's pixels [first, end) that there are, 16 N outputs each.
template <int N>
struct Finish {
  int64_t stride, panel;
  const uint16_t* skip_weight;
  bool relu;
  inline __attribute__((always_inline)) void operator()(const Block& b, int first, int end) const {
    for (int r = first; r < end && r < b.count; ++r) {
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) {
        V::Reg v = V::load(b.sums + (r * N + n) * kTileSide);
        const int64_t at = r * stride + n * kTileSide;
        if (b.skip) {
          for (int k = 0; k < kSkip; k += T::kPerWord) {
            v = T::mac(v, T::word(b.skip + r * kSkip + k), T::weights(skip_weight + n * panel + k * kPanel));
          }
        }
        if (b.add) v = V::add(v, T::load(b.add + at));
        if (relu) v = V::relu(v);
        T::store(b.out + at, v);
      }
    }
  }
};

// 16 N outputs from `column` on of rows [begin, end). Downwards in strips as wide as a block: of three rows of inputs, two are in
// the first cache already.
template <int N>
void convolve_strips(const ConvolveParams& p, TileProduct product, int64_t begin, int64_t end, int column) {
  constexpr int kPixels = 2 * kTileSide;
  const int reach = p.kernel / 2;
  const auto* input = static_cast<const uint16_t*>(p.input) - reach * (p.input_row_stride + p.in);
  product.weight += column / kPanel * product.panel;
  product.bias = p.bias + column;
  alignas(64) float sums[2][kPixels * N * kTileSide];
  const int64_t skip_at = product.panel - kSkip * kPanel;
  const Finish<N> finish{p.out, product.panel, product.weight + skip_at, p.relu};
  const auto block = [&](int64_t y, int64_t x, int count, const float* done) {
    const int64_t at = y * p.output_row_stride + x * p.out + column;
    return Block{count, done, static_cast<uint16_t*>(p.output) + at, p.add ? static_cast<const uint16_t*>(p.add) + at : nullptr,
                 p.skip ? static_cast<const uint16_t*>(p.skip) + y * p.skip_row_stride + x * kSkip : nullptr};
  };
  Block before{};
  // Of a block's pixels, and of the next row's lines in the cache, which are asked for in time.
  const int share = share_of(product, kPixels), lines = share_of(product, (kPixels + 2 * reach) * p.in * 2 / 64);
  int turn = 0;
  int64_t x = 0;
  for (; x + kPixels <= p.grid.columns; x += kPixels) {
    for (int64_t y = begin; y < end; ++y, turn ^= 1) {
      product.rows = input + y * p.input_row_stride + x * p.in;
      const auto* next = reinterpret_cast<const char*>(product.rows + p.kernel * p.input_row_stride);
      tile_sums<2, N>(product, sums[turn], [&](int step) {
        finish(before, step * share, step * share + share);
        for (int i = step * lines; i < (step + 1) * lines; ++i) _mm_prefetch(next + 64 * i, _MM_HINT_T0);
      });
      before = block(y, x, kPixels, sums[turn]);
    }
  }
  // A tile reads 16 pixels, so the last ones are copied to where there are as many.
  const int64_t run = (kTileSide + 2 * reach) * p.in;
  thread_local std::vector<Stored> tail;
  if (x < p.grid.columns && static_cast<int64_t>(tail.size()) < p.kernel * run) tail.resize(p.kernel * run);
  for (; x < p.grid.columns; x += kTileSide) {
    const int left = p.grid.columns - x < kTileSide ? static_cast<int>(p.grid.columns - x) : kTileSide;
    for (int64_t y = begin; y < end; ++y, turn ^= 1) {
      for (int i = 0; i < p.kernel; ++i) {
        std::memcpy(tail.data() + i * run, input + (y + i) * p.input_row_stride + x * p.in, (left + 2 * reach) * p.in * 2);
      }
      product.rows = &tail.data()->bits, product.run_stride = run;
      tile_sums<1, N>(product, sums[turn], [&](int step) { finish(before, step * share, step * share + share); });
      before = block(y, x, left, sums[turn]);
    }
  }
  finish(before, 0, before.count);
}

}  // namespace

void convolve_amx(const ConvolveParams& p, int64_t begin, int64_t end) {
  if (p.type != Type::bf16) return convolve_avx512(p, begin, end);
  const int run = p.kernel * p.in, inputs = p.kernel * run + (p.skip ? kSkip : 0);
  const TileSteps steps = steps_of(run);
  const TileShapes shapes(steps.length);
  const TileProduct product{nullptr,
                            p.in,
                            int64_t{kTileSide} * p.in,
                            steps.length,
                            p.input_row_stride,
                            p.kernel,
                            steps,
                            static_cast<const uint16_t*>(p.weight),
                            static_cast<int64_t>(inputs) * kPanel,
                            nullptr};
  // Rows whose pixels stay in the second cache while the panels pass by.
  constexpr int64_t kCached = 1 << 19;
  const int64_t cached = kCached / (p.grid.columns * (p.in + p.out)), band = cached < 4 ? 4 : cached;
  for (int64_t y = begin; y < end; y += band) {
    const int64_t last = end < y + band ? end : y + band;
    int column = 0;
    for (; column + 2 * kPanel <= p.out; column += 2 * kPanel) convolve_strips<2>(p, product, y, last, column);
    if (column < p.out) convolve_strips<1>(p, product, y, last, column);
  }
}

}  // namespace liif
