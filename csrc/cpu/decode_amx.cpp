// AMX for the hidden layers in bf16, AVX-512-BF16 for the rest; f32 work goes to AVX-512.
#include "decode_simd.h"
#include "tiles_amx.h"

namespace liif {
namespace {

using V = Floats;

constexpr int kBlock = 2 * kTileSide;
static_assert(kTileRows % kBlock == 0, "a full tile is whole blocks");

// What a layer stores of a block of sums.
template <class Out>
struct Sums {
  alignas(64) float sums[kBlock * 2 * kTileSide];
  Out* to = nullptr;
  int columns = 0;  // 16 or 32
  template <int N>
  inline __attribute__((always_inline)) void finish(int stride, int first, int end) const {
    for (int r = first; r < end && r < kBlock; ++r) {
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) {
        Bf16Pairs::store(to + static_cast<int64_t>(r) * stride + n * kTileSide, V::relu(V::load(sums + (r * N + n) * kTileSide)));
      }
    }
  }
  inline __attribute__((always_inline)) void finish(int stride, int first, int end) const {
    if (columns == 2 * kTileSide) finish<2>(stride, first, end);
    if (columns == kTileSide) finish<1>(stride, first, end);
  }
};

// One hidden layer over `rows` rows, rounded up to whole blocks. A block is stored while the next is computed.
template <class Out>
void tiled_layer(const HiddenLayer& layer, int rows, const uint16_t* in, Out* out) {
  const TileSteps steps(layer.in);
  const TileShapes shapes(steps.length);
  TileProduct p{in, layer.in, 0, 1, steps, nullptr, static_cast<int64_t>(layer.in) * kPanel, nullptr};
  const int share = share_of(p, kBlock);
  Sums<Out> turns[2];
  int turn = 0;
  for (int column = 0; column < layer.out; column += 2 * kTileSide) {
    p.weight = static_cast<const uint16_t*>(layer.weight) + static_cast<int64_t>(column) * layer.in;
    p.bias = layer.bias + column;
    for (int r = 0; r < rows; r += kBlock) {
      p.rows = in + static_cast<int64_t>(r) * layer.in;
      Sums<Out>& now = turns[turn];
      const Sums<Out>& before = turns[turn ^= 1];
      const auto beside = [&](int step) { before.finish(layer.out, step * share, step * share + share); };
      now.columns = layer.out - column < 2 * kTileSide ? kTileSide : 2 * kTileSide;
      if (now.columns == kTileSide) {
        tile_sums<2, 1>(p, now.sums, beside);
      } else {
        tile_sums<2, 2>(p, now.sums, beside);
      }
      now.to = out + static_cast<int64_t>(r) * layer.out + column;
    }
  }
  turns[turn ^ 1].finish(layer.out, 0, kBlock);
}

}  // namespace

void decode_amx(const DecodeParams& p, int64_t begin, int64_t end, Scratch& scratch) {
  if (p.type != Type::bf16) return decode_avx512(p, begin, end, scratch);
  decode_tiles<Bf16Pairs>(p, begin, end, scratch, [](const HiddenLayer& layer, int rows, const uint16_t* in, auto* out) {
    tiled_layer(layer, rows, in, out);
  });
}

}  // namespace liif
