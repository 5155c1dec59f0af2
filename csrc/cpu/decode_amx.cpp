// AMX for the hidden layers in bf16, AVX-512-BF16 for the rest; f32 work goes to AVX-512.
//
// Activations lie as tiles load them, [rows / 16][width / step][16][step], so that a layer goes through memory in order.
#include "isa.h"
#include "tiles_amx.h"

namespace liif {
namespace {

using V = Floats;
using T = Bf16Pairs;

constexpr int kBlock = 2 * kTileSide;
static_assert(kTileRows % kBlock == 0, "a full tile is whole blocks");

inline int step_of(int width) { return width % kBlock ? kTileSide : kBlock; }

inline int place(int row, int column, int width) {
  const int step = step_of(width), inside = column & (step - 1), below = row & (kTileSide - 1);
  return (row - below) * width + (column - inside) * kTileSide + below * step + inside;
}

// A query at one of its neighbouring cells.
struct Row {
  const uint16_t* cell;
  float y, x, weight;
};

// Of `count` pixels from `at` on; what is left of a tile's rows repeats the last.
void find_rows(const DecodeParams& p, Cursor at, int count, Row* row) {
  Row* const begin = row;
  for (int i = 0; i < count; ++i, at.next()) {
    for (int s = 0; s < p.sides * p.sides; ++s, ++row) {
      const int64_t y = s / p.sides * p.y.size + at.row, x = s % p.sides * p.x.size + at.column;
      row->cell = static_cast<const uint16_t*>(p.z) + p.y.index[y] * p.z_row_stride + int64_t{p.x.index[x]} * p.width;
      row->y = p.y.offset[y], row->x = p.x.offset[x];
      row->weight = p.y.weight[y] * p.x.weight[x];
    }
  }
  for (; (row - begin) % kTileSide; ++row) *row = row[-1];
}

// As in decode_simd.h, but column by column.
void first_layer(const DecodeParams& p, int rows, const Row* row, uint16_t* out) {
  const int step = step_of(p.width);
  for (int c = 0; c < p.width; c += kPanel) {
    const V::Reg first = V::load(p.first + c), first_y = V::load(p.first_y + c), first_x = V::load(p.first_x + c);
    for (int r = 0; r < rows; r += kTileSide) {
      uint16_t* to = out + place(r, c, p.width);
      for (const Row *at = row + r, *end = at + kTileSide; at < end; ++at, to += step) {
        const V::Reg terms = V::fma(first_x, V::set1(at->x), V::fma(first_y, V::set1(at->y), first));
        T::store(to, V::relu(V::add(T::load(at->cell + c), terms)));
      }
    }
  }
}

// Sums of a block, from (row, column) on, and what becomes of them.
struct Block {
  const float* sums;  // [kBlock][16 N]
  int row, column;
};

// Panels [begin, end) of a hidden layer, N at a time, over `rows` rows, rounded up to whole blocks. While one block is computed,
// finish.part<N>(block, first, end) gets the one before, at each step a share of its `kParts`.
template <int N, class Finish>
void tiled_panels(const HiddenLayer& layer, int begin, int end, int rows, const uint16_t* in, const Finish& finish) {
  const int step = step_of(layer.in), steps = layer.in / step;
  TileProduct p{};
  p.row_stride = step, p.tile_stride = int64_t{kTileSide} * layer.in, p.step_stride = kTileSide * step;
  p.runs = 1, p.steps = {steps, step}, p.panel = int64_t{layer.in} * kPanel;
  alignas(64) float sums[2][kBlock * N * kTileSide];
  const int share = share_of(p, Finish::kParts);
  Block before{nullptr, 0, 0};
  int turn = 0;
  for (int c = begin * kPanel; c < end * kPanel; c += N * kPanel) {
    p.weight = static_cast<const uint16_t*>(layer.weight) + int64_t{c} * layer.in;
    p.bias = layer.bias + c;
    for (int r = 0; r < rows; r += kBlock, turn ^= 1) {
      p.rows = in + int64_t{r} * layer.in;
      tile_sums<2, N>(p, sums[turn], [&](int i) {
        if (before.sums) finish.template part<N>(before, i * share, i * share + share);
      });
      before = {sums[turn], r, c};
    }
  }
  if (before.sums) finish.template part<N>(before, 0, Finish::kParts);
}

template <class Finish>
void tiled_layer(const HiddenLayer& layer, int rows, const uint16_t* in, const Finish& finish) {
  const TileShapes shapes(step_of(layer.in));
  const int panels = layer.out / kPanel, even = panels / 2 * 2;
  tiled_panels<2>(layer, 0, even, rows, in, finish);
  tiled_panels<1>(layer, even, panels, rows, in, finish);
}

// Keeps a block as activations of the next layer.
struct Store {
  static constexpr int kParts = kBlock;
  uint16_t* out;
  int width;
  template <int N>
  inline __attribute__((always_inline)) void part(const Block& b, int first, int end) const {
    const int step = step_of(width), panel = place(0, kPanel, width);
    uint16_t* to = out + place(b.row + first, b.column, width);
    const float* from = b.sums + first * N * kPanel;
    for (int r = first; r < end && r < kParts; ++r, to += step, from += N * kPanel) {
      if (r == kTileSide && r > first) to += kTileSide * (width - step);  // from one tile to the other
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) T::store(to + n * panel, V::relu(V::load(from + n * kPanel)));
    }
  }
};

// The paper's local ensemble (eq. 4) and the last layer, added to the sums of each pixel: `sum` [pixels][3][16].
template <int kNeighbours>
struct Blend {
  static constexpr int kParts = kBlock / kNeighbours;  // pixels
  const DecodeParams& p;
  const Row* rows;
  int width;
  float* sum;
  template <int N>
  inline __attribute__((always_inline)) void part(const Block& b, int first, int end) const {
    for (int i = first; i < end && i < kParts; ++i) {
      const Row* row = rows + b.row + i * kNeighbours;
      float* to = sum + (b.row / kNeighbours + i) * 3 * kPanel;
      V::Reg total[3];
#pragma GCC unroll 3
      for (int o = 0; o < 3; ++o) total[o] = b.column ? V::load(to + o * kPanel) : V::set1(0);
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) {
        V::Reg v = V::set1(0);
#pragma GCC unroll 4
        for (int s = 0; s < kNeighbours; ++s) {
          const V::Reg h = V::relu(V::load(b.sums + ((i * kNeighbours + s) * N + n) * kPanel));
          v = V::fma(V::set1(row[s].weight), h, v);
        }
#pragma GCC unroll 3
        for (int o = 0; o < 3; ++o) total[o] = V::fma(v, V::load(p.last + o * width + b.column + n * kPanel), total[o]);
      }
#pragma GCC unroll 3
      for (int o = 0; o < 3; ++o) V::store(to + o * kPanel, total[o]);
    }
  }
};

}  // namespace

void decode_amx(const DecodeParams& p, int64_t begin, int64_t end, Scratch& scratch) {
  if (p.type != Type::bf16) return decode_avx512(p, begin, end, scratch);
  if (p.hidden_count == 0) return decode_avx512bf16(p, begin, end, scratch);
  const HiddenLayer& last = p.hidden[p.hidden_count - 1];
  Row row[kTileRows] = {};
  for (int64_t pixel = begin; pixel < end; pixel += kTilePixels) {
    const int count = static_cast<int>(end - pixel < kTilePixels ? end - pixel : kTilePixels);
    const int rows = count * p.sides * p.sides;
    Cursor at(p, pixel);
    auto *in = reinterpret_cast<uint16_t*>(scratch.a), *out = reinterpret_cast<uint16_t*>(scratch.b);
    find_rows(p, at, count, row);
    first_layer(p, rows, row, in);
    for (const HiddenLayer* layer = p.hidden; layer != &last; ++layer) {
      tiled_layer(*layer, rows, in, Store{out, layer->out});
      auto* swap = in;
      in = out, out = swap;
    }
    if (p.sides == 2) {
      tiled_layer(last, rows, in, Blend<4>{p, row, last.out, scratch.sums});
    } else {
      tiled_layer(last, rows, in, Blend<1>{p, row, last.out, scratch.sums});
    }
    for (int i = 0; i < count; ++i, at.next()) {
      const float* sum = scratch.sums + i * 3 * kPanel;
      const float rgb[3] = {V::sum(V::load(sum)), V::sum(V::load(sum + kPanel)), V::sum(V::load(sum + 2 * kPanel))};
      store_pixel(p, at.row, at.column, rgb);
    }
  }
}

}  // namespace liif
